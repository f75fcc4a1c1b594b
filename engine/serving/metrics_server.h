// Where Prometheus reads: http://HOST:PORT/metrics.

#ifndef FERMATA_ENGINE_SERVING_METRICS_SERVER_H_
#define FERMATA_ENGINE_SERVING_METRICS_SERVER_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "prometheus/collectable.h"
#include "prometheus/exposer.h"

namespace fermata {

// Serves from Start() to destruction, on threads of its own.
class MetricsServer {
 public:
  // Listens at "host:port", an IPv4 address; port 0 picks a free one. UNAVAILABLE naming the address if it cannot be
  // had, INVALID_ARGUMENT if it is none.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(
      const std::string& address, std::vector<std::shared_ptr<prometheus::Collectable>> sources);

  // With the port that was picked.
  const std::string& address() const { return address_; }

 private:
  MetricsServer(const std::string& address, std::vector<std::shared_ptr<prometheus::Collectable>> sources);

  const std::string address_;
  const std::vector<std::shared_ptr<prometheus::Collectable>> sources_;
  prometheus::Exposer exposer_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_METRICS_SERVER_H_
