// What a control request may not hold.

#ifndef FERMATA_CONTROL_REQUEST_CHECKS_H_
#define FERMATA_CONTROL_REQUEST_CHECKS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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

}  // namespace fermata

#endif  // FERMATA_CONTROL_REQUEST_CHECKS_H_
