// From control requests to the engine's commands.

#ifndef FERMATA_CONTROL_VERB_CONVERSION_H_
#define FERMATA_CONTROL_VERB_CONVERSION_H_

#include "absl/status/statusor.h"
#include "engine/core/commands.h"
#include "engine/serving/model_text.h"
#include "proto/fermata/v1/control_service.pb.h"

namespace fermata {

// Ids in one verb, operations in one Apply.
inline constexpr int kMaxIds = 10000;
inline constexpr int kMaxOperations = 10000;

// Without a ticket; every field checked but for what the engine alone knows. INVALID_ARGUMENT naming the field, its
// value and what is allowed; UNIMPLEMENTED naming a field that is not served yet.
absl::StatusOr<EnqueueCommand> ToCommand(const v1::EnqueueRequest& request, const ModelText& text);
absl::StatusOr<PreemptCommand> ToCommand(const v1::PreemptRequest& request);
absl::StatusOr<ContinueCommand> ToCommand(const v1::ContinueRequest& request, const ModelText& text);
absl::StatusOr<AbortCommand> ToCommand(const v1::AbortRequest& request);
absl::StatusOr<SetPriorityCommand> ToCommand(const v1::SetPriorityRequest& request);
absl::StatusOr<ApplyCommand> ToCommand(const v1::ApplyRequest& request, const ModelText& text);
absl::StatusOr<OpenSessionCommand> ToCommand(const v1::OpenSessionRequest& request);
absl::StatusOr<KeepSessionAliveCommand> ToCommand(const v1::KeepSessionAliveRequest& request);
absl::StatusOr<CloseSessionCommand> ToCommand(const v1::CloseSessionRequest& request);

// The answer.
void ToProto(const SessionInfo& session, v1::Session* proto);

}  // namespace fermata

#endif  // FERMATA_CONTROL_VERB_CONVERSION_H_
