// What a control request may not hold.

#ifndef FERMATA_CONTROL_REQUEST_CHECKS_H_
#define FERMATA_CONTROL_REQUEST_CHECKS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/core/commands.h"
#include "engine/core/ids.h"
#include "proto/fermata/v1/control_service.pb.h"

namespace fermata {

// INVALID_ARGUMENT for none or more than `limit` of them, or for one that is malformed, which is named.
absl::StatusOr<std::vector<GenerationId>> ParseIds(const google::protobuf::RepeatedPtrField<std::string>& ids,
                                                   int limit);

// INVALID_ARGUMENT naming the allowed length.
absl::Status CheckReason(const std::string& reason);

// Without a ticket. INVALID_ARGUMENT for a page size, token or state that is not legal.
absl::StatusOr<ListGenerationsCommand> ToListCommand(const v1::ListGenerationsRequest& request, int max_page_size);

// How long a watch may hold progress back; zero if it does not. INVALID_ARGUMENT below 0 or above 60 s.
absl::StatusOr<absl::Duration> ToProgressInterval(const v1::WatchRequest& request);

}  // namespace fermata

#endif  // FERMATA_CONTROL_REQUEST_CHECKS_H_
