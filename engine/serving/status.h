// Errors on their way out.

#ifndef FERMATA_ENGINE_SERVING_STATUS_H_
#define FERMATA_ENGINE_SERVING_STATUS_H_

#include <string>

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace fermata {

// gRPC carries messages in a header: longer ones are cut, on a character's border.
inline constexpr size_t kMaxStatusMessageBytes = 1024;

// The same code; codes of both are the canonical ones.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_STATUS_H_
