#include "control/verb_conversion.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "control/request_checks.h"
#include "engine/serving/generation_conversion.h"
#include "engine/serving/spec_conversion.h"
#include "engine/serving/status.h"

namespace fermata {
namespace {

constexpr size_t kMaxAppendIdBytes = 128;
constexpr absl::Duration kDefaultTtl = absl::Seconds(15);
constexpr absl::Duration kShortestTtl = absl::Seconds(1);
constexpr absl::Duration kLongestTtl = absl::Hours(1);

// Sessions are named as generations are.
absl::Status CheckSessionId(const std::string& id) {
  const absl::Status status = GenerationId::Parse(id).status();
  return status.ok() ? status : absl::InvalidArgumentError(absl::StrCat("session_id: ", status.message()));
}

template <typename Request>
absl::StatusOr<Caller> ToCaller(const Request& request) {
  if (request.session_id().empty()) {
    if (request.epoch() == 0) return Caller();
    return absl::InvalidArgumentError(
        absl::StrCat("epoch is ", request.epoch(), " without a session_id; allowed is 0"));
  }
  const absl::Status id = CheckSessionId(request.session_id());
  if (!id.ok()) return id;
  if (request.epoch() <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("epoch is ", request.epoch(), "; with a session_id it is needed, as OpenSession gave it"));
  }
  return Caller{request.session_id(), request.epoch()};
}

// For what only a session can ask for.
template <typename Request>
absl::StatusOr<Caller> ToSession(const Request& request) {
  if (request.session_id().empty()) return absl::InvalidArgumentError("session_id is empty; it is needed");
  return ToCaller(request);
}

template <typename Request>
absl::StatusOr<Lease> ToLease(const Request& request) {
  Lease lease;
  if (request.has_lease()) {
    const absl::StatusOr<absl::Duration> duration = ToPositiveDuration(request.lease(), "lease");
    if (!duration.ok()) return duration.status();
    lease.duration = *duration;
  }
  switch (request.on_lease_expiry()) {
    case v1::OnLeaseExpiry::ON_LEASE_EXPIRY_UNSPECIFIED:
    case v1::OnLeaseExpiry::CONTINUE:
      return lease;
    case v1::OnLeaseExpiry::ABORT:
      lease.on_expiry = OnLeaseExpiry::kAbort;
      return lease;
    default:
      return absl::InvalidArgumentError(absl::StrCat("on_lease_expiry is ", static_cast<int>(request.on_lease_expiry()),
                                                     "; allowed is CONTINUE or ABORT"));
  }
}

absl::StatusOr<KvTier> ToTier(v1::KvTier::Tier tier) {
  switch (tier) {
    case v1::KvTier::KV_TIER_UNSPECIFIED:
      return KvTier::kNone;
    case v1::KvTier::DEVICE:
      return KvTier::kDevice;
    case v1::KvTier::HOST:
      return KvTier::kHost;
    case v1::KvTier::DISK:
      return KvTier::kDisk;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("tier is ", static_cast<int>(tier), "; allowed is DEVICE, HOST or DISK"));
  }
}

absl::StatusOr<Selector> ToSelector(const v1::Selector& from) {
  if (from.tenant().empty() && from.traffic_class().empty() && from.states().empty()) {
    return absl::InvalidArgumentError("selector is empty; it needs tenant, traffic_class or states");
  }
  Selector to = {from.tenant(), from.traffic_class(), {}};
  for (const int state : from.states()) {
    const absl::StatusOr<GenerationState> parsed = ToGenerationState(state);
    if (!parsed.ok()) return parsed.status();
    // Once each: they are looked through for every generation.
    if (!absl::c_linear_search(to.states, *parsed)) to.states.push_back(*parsed);
  }
  return to;
}

// Fills in whom the verb is about and whom it is for.
template <typename Request, typename Verb>
absl::Status FillTargets(const Request& request, Verb& verb) {
  if (request.has_selector()) {
    if (!request.generation_ids().empty()) {
      return absl::InvalidArgumentError("generation_ids and selector are set; allowed is one of them");
    }
    absl::StatusOr<Selector> selector = ToSelector(request.selector());
    if (!selector.ok()) return selector.status();
    verb.selector = *std::move(selector);
  } else {
    absl::StatusOr<std::vector<GenerationId>> ids = ParseIds(request.generation_ids(), kMaxIds);
    if (!ids.ok()) return ids.status();
    verb.ids = *std::move(ids);
  }
  absl::StatusOr<Caller> caller = ToCaller(request);
  if (!caller.ok()) return caller.status();
  verb.caller = *std::move(caller);
  return absl::OkStatus();
}

absl::Status FillAppend(const v1::ContinueRequest& request, const ModelText& text, ContinueCommand& command) {
  if (request.append_id().size() > kMaxAppendIdBytes) {
    return absl::InvalidArgumentError(absl::StrCat("append_id is ", request.append_id().size(),
                                                   " bytes long; allowed are at most ", kMaxAppendIdBytes));
  }
  if (!request.has_append()) {
    if (request.append_id().empty()) return absl::OkStatus();
    return absl::InvalidArgumentError("append_id is set; it is allowed with append alone");
  }
  absl::StatusOr<AppendedTurns> turns = ToAppendedTokens(request.append(), text);
  if (!turns.ok()) return turns.status();
  if (turns->tokens.empty()) return absl::InvalidArgumentError("append has no tokens; at least 1 is needed");
  command.turn_end = std::move(turns->turn_end);
  command.append = std::move(turns->tokens);
  command.append_id = request.append_id();
  return absl::OkStatus();
}

// The verb of one operation; `set` makes it of the request.
template <typename Request, typename ToVerb>
absl::StatusOr<Operation> ToOperation(const Request& request, ToVerb to_verb) {
  if (!request.session_id().empty() || request.epoch() != 0) {
    return absl::InvalidArgumentError("session_id or epoch is set; those of the Apply are meant for all");
  }
  auto verb = to_verb(request);
  if (!verb.ok()) return verb.status();
  return Operation(*std::move(verb));
}

absl::StatusOr<Operation> ToOperation(const v1::Operation& operation, const ModelText& text) {
  const auto plain = [](const auto& request) { return ToCommand(request); };
  const auto with_text = [&](const auto& request) { return ToCommand(request, text); };
  switch (operation.operation_case()) {
    case v1::Operation::kEnqueue:
      return ToOperation(operation.enqueue(), with_text);
    case v1::Operation::kPreempt:
      return ToOperation(operation.preempt(), plain);
    case v1::Operation::kResume:
      return ToOperation(operation.resume(), with_text);
    case v1::Operation::kAbort:
      return ToOperation(operation.abort(), plain);
    case v1::Operation::kSetPriority:
      return ToOperation(operation.set_priority(), plain);
    case v1::Operation::OPERATION_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("no verb is set; it needs enqueue, preempt, resume, abort or set_priority");
}

}  // namespace

absl::StatusOr<EnqueueCommand> ToCommand(const v1::EnqueueRequest& request, const ModelText& text) {
  EnqueueCommand command;
  command.hold = request.hold();
  if (!request.hold()) {
    const bool clean =
        !request.has_lease() && request.on_lease_expiry() == 0 && request.session_id().empty() && request.epoch() == 0;
    if (!clean) {
      return absl::InvalidArgumentError(
          "lease, on_lease_expiry, session_id or epoch is set; they are allowed with hold alone");
    }
  }
  absl::StatusOr<Lease> lease = ToLease(request);
  if (!lease.ok()) return lease.status();
  command.lease = *lease;
  absl::StatusOr<Caller> caller = ToCaller(request);
  if (!caller.ok()) return caller.status();
  command.caller = *std::move(caller);
  absl::StatusOr<GenerationId> id = ToNewGenerationId(request.generation_id());
  if (!id.ok()) return id.status();
  command.id = *std::move(id);
  absl::StatusOr<GenerationSpec> spec = ToGenerationSpec(request.spec(), OnDisconnect::kContinue, text);
  if (!spec.ok()) return spec.status();
  command.spec = *std::move(spec);
  command.body_digest = DigestBody(request.spec(), request.hold());
  return command;
}

absl::StatusOr<PreemptCommand> ToCommand(const v1::PreemptRequest& request) {
  PreemptCommand command;
  const absl::StatusOr<KvTier> tier = ToTier(request.tier());
  if (!tier.ok()) return tier.status();
  command.tier = *tier;
  absl::Status status = FillTargets(request, command);
  if (status.ok()) status = CheckReason(request.reason());
  if (!status.ok()) return status;
  const absl::StatusOr<Lease> lease = ToLease(request);
  if (!lease.ok()) return lease.status();
  command.lease = *lease;
  command.reason = request.reason();
  return command;
}

absl::StatusOr<ContinueCommand> ToCommand(const v1::ContinueRequest& request, const ModelText& text) {
  ContinueCommand command;
  const absl::Status status = FillTargets(request, command);
  if (!status.ok()) return status;
  if (request.has_append() || request.has_max_tokens()) {
    if (command.ids.size() != 1) {
      return absl::InvalidArgumentError("append or max_tokens is set; they are allowed with exactly 1 generation_id");
    }
    if (request.has_max_tokens()) {
      if (request.max_tokens() < 1) {
        return absl::InvalidArgumentError(
            absl::StrCat("max_tokens is ", request.max_tokens(), "; allowed is 1 or more"));
      }
      command.max_tokens = request.max_tokens();
    }
  }
  const absl::Status append = FillAppend(request, text, command);
  if (!append.ok()) return append;
  return command;
}

absl::StatusOr<AbortCommand> ToCommand(const v1::AbortRequest& request) {
  AbortCommand command;
  absl::Status status = FillTargets(request, command);
  if (status.ok()) status = CheckReason(request.reason());
  if (!status.ok()) return status;
  command.reason = request.reason();
  return command;
}

absl::StatusOr<SetPriorityCommand> ToCommand(const v1::SetPriorityRequest& request) {
  SetPriorityCommand command;
  const absl::Status status = FillTargets(request, command);
  if (!status.ok()) return status;
  command.priority = request.priority();
  return command;
}

absl::StatusOr<ApplyCommand> ToCommand(const v1::ApplyRequest& request, const ModelText& text) {
  if (request.operations().empty() || request.operations_size() > kMaxOperations) {
    return absl::InvalidArgumentError(
        absl::StrCat("operations has ", request.operations_size(), " entries; allowed are 1 to ", kMaxOperations));
  }
  ApplyCommand command;
  command.atomic = request.atomic();
  absl::StatusOr<Caller> caller = ToCaller(request);
  if (!caller.ok()) return caller.status();
  command.caller = *std::move(caller);
  command.operations.reserve(request.operations_size());
  for (const v1::Operation& from : request.operations()) {
    absl::StatusOr<Operation> operation = ToOperation(from, text);
    if (!operation.ok()) {
      return absl::Status(operation.status().code(),
                          absl::StrCat("operations[", command.operations.size(), "]: ", operation.status().message()));
    }
    command.operations.push_back(*std::move(operation));
  }
  return command;
}

absl::StatusOr<OpenSessionCommand> ToCommand(const v1::OpenSessionRequest& request) {
  OpenSessionCommand command = {.ttl = kDefaultTtl, .takeover = request.takeover()};
  const absl::StatusOr<GenerationId> id = ToNewGenerationId(request.session_id());
  if (!id.ok()) return absl::InvalidArgumentError(absl::StrCat("session_id: ", id.status().message()));
  command.session_id = id->value();
  if (request.has_ttl()) {
    const absl::StatusOr<absl::Duration> ttl = ToPositiveDuration(request.ttl(), "ttl");
    if (!ttl.ok()) return ttl.status();
    command.ttl = *ttl;
  }
  if (command.ttl < kShortestTtl || command.ttl > kLongestTtl) {
    return absl::InvalidArgumentError(absl::StrCat("ttl is ", absl::FormatDuration(command.ttl), "; allowed is ",
                                                   absl::FormatDuration(kShortestTtl), " to ",
                                                   absl::FormatDuration(kLongestTtl)));
  }
  return command;
}

absl::StatusOr<KeepSessionAliveCommand> ToCommand(const v1::KeepSessionAliveRequest& request) {
  absl::StatusOr<Caller> caller = ToSession(request);
  if (!caller.ok()) return caller.status();
  return KeepSessionAliveCommand{.caller = *std::move(caller)};
}

absl::StatusOr<CloseSessionCommand> ToCommand(const v1::CloseSessionRequest& request) {
  absl::StatusOr<Caller> caller = ToSession(request);
  if (!caller.ok()) return caller.status();
  return CloseSessionCommand{.caller = *std::move(caller)};
}

void ToProto(const SessionInfo& session, v1::Session* proto) {
  proto->set_session_id(session.session_id);
  proto->set_epoch(session.epoch);
  ToProto(session.ttl, proto->mutable_ttl());
}

}  // namespace fermata
