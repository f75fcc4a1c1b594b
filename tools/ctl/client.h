// The connections to a server's two planes.

#ifndef FERMATA_TOOLS_CTL_CLIENT_H_
#define FERMATA_TOOLS_CTL_CLIENT_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "grpcpp/grpcpp.h"
#include "proto/fermata/v1/control_service.grpc.pb.h"
#include "proto/fermata/v1/inference_service.grpc.pb.h"

namespace fermata::ctl {

// A stub for each service. Connects on first use, so a command needs only the plane that it speaks to.
class Client {
 public:
  // Addresses are host:port or unix:PATH.
  Client(const std::string& data_address, const std::string& control_address);

  v1::InferenceService::Stub& data() { return *data_; }
  v1::ControlService::Stub& control() { return *control_; }

  // Bounds a call that does not stream: the server answers those within a step.
  static void SetDeadline(grpc::ClientContext& context);

  // The same code and message.
  static absl::Status ToStatus(const grpc::Status& status);

 private:
  std::unique_ptr<v1::InferenceService::Stub> data_;
  std::unique_ptr<v1::ControlService::Stub> control_;
};

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_CLIENT_H_
