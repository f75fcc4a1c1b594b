// A gRPC server for one service: a plane.

#ifndef FERMATA_ENGINE_SERVING_LISTENER_H_
#define FERMATA_ENGINE_SERVING_LISTENER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"

namespace fermata {

// With reflection and grpc.health.v1, so that grpcurl needs no proto files; and keep-alive settings under which a
// stream that is paused for an hour is not taken for dead by either side.
class Listener {
 public:
  static constexpr int kMaxMessageBytes = 16 << 20;

  // Listens at every one of `addresses`: "host:port" (port 0 picks a free one) or "unix:PATH". `service` must outlive
  // it. UNAVAILABLE naming the address if one cannot be had.
  static absl::StatusOr<std::unique_ptr<Listener>> Start(const std::vector<std::string>& addresses,
                                                         grpc::Service& service);

  // Shutdown(0), if it was not called.
  ~Listener();

  // As given, with the ports that were picked.
  const std::vector<std::string>& addresses() const { return addresses_; }

  void SetServing(bool serving);

  // Refuses new calls, gives those under way until `grace` has passed, then cancels them. Returns when all are done.
  // Called a second time: no change.
  void Shutdown(absl::Duration grace);

 private:
  Listener(std::unique_ptr<grpc::Server> server, std::vector<std::string> addresses)
      : server_(std::move(server)), addresses_(std::move(addresses)) {}

  std::unique_ptr<grpc::Server> server_;
  std::vector<std::string> addresses_;
  bool shut_down_ = false;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_LISTENER_H_
