#include "tests/sim/trace.h"

#include <cstdio>
#include <variant>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace fermata {
namespace {

std::string Ids(const std::vector<GenerationId>& ids) {
  return absl::StrJoin(ids, ",", [](std::string* out, const GenerationId& id) { out->append(id.value()); });
}

std::string Line(const EnqueueCommand& command) {
  const SamplingParams& sampling = command.spec.sampling;
  return absl::StrCat("Enqueue ", command.id.value(), " body=", command.body_digest,
                      " prompt=", command.spec.prompt.size(), " max_tokens=", sampling.max_tokens,
                      " seed=", sampling.seed, " priority=", command.spec.priority, command.hold ? " hold" : "",
                      command.attach_reader ? " reader" : "",
                      " on_disconnect=", static_cast<int>(command.spec.on_disconnect),
                      " timeout=", absl::FormatDuration(command.spec.timeout));
}

std::string Who(const Caller& caller) {
  return caller.session_id.empty() ? "" : absl::StrCat(" for ", caller.session_id, "@", caller.epoch);
}

// Whom a verb is about, and for whom it is done.
template <typename Verb>
std::string Targets(const Verb& verb) {
  if (!verb.selector.has_value()) return absl::StrCat(Ids(verb.ids), Who(verb.caller));
  return absl::StrCat("all of tenant=", verb.selector->tenant, " class=", verb.selector->traffic_class,
                      " states=", verb.selector->states.size(), Who(verb.caller));
}

std::string Line(const PreemptCommand& command) {
  return absl::StrCat("Preempt ", Targets(command), command.tier == KvTier::kNone ? "" : " to ",
                      command.tier == KvTier::kNone ? "" : Name(command.tier),
                      " lease=", absl::FormatDuration(command.lease.duration),
                      command.lease.on_expiry == OnLeaseExpiry::kAbort ? " then abort" : "");
}
std::string Line(const ContinueCommand& command) {
  return absl::StrCat("Continue ", Targets(command), command.append.empty() ? "" : " append=", command.append.size(),
                      command.append_id.empty() ? "" : " as ", command.append_id,
                      " max_tokens=", command.max_tokens.value_or(0));
}
std::string Line(const AbortCommand& command) { return absl::StrCat("Abort ", Targets(command)); }
std::string Line(const SetPriorityCommand& command) {
  return absl::StrCat("SetPriority ", Targets(command), " to ", command.priority);
}
std::string Line(const OpenSessionCommand& command) {
  return absl::StrCat("OpenSession ", command.session_id, " ", absl::FormatDuration(command.ttl),
                      command.takeover ? " takeover" : "");
}
std::string Line(const KeepSessionAliveCommand& command) {
  return absl::StrCat("KeepSessionAlive ", Who(command.caller));
}
std::string Line(const CloseSessionCommand& command) { return absl::StrCat("CloseSession ", Who(command.caller)); }
std::string Line(const SnapshotCommand&) { return "Snapshot"; }
std::string Line(const ApplyCommand& command) {
  std::string line = absl::StrCat("Apply ", command.atomic ? "atomic " : "", Who(command.caller));
  for (const Operation& operation : command.operations) {
    absl::StrAppend(&line, "; ", std::visit([](const auto& verb) { return Line(verb); }, operation));
  }
  return line;
}
std::string Line(const AttachCommand& command) {
  return absl::StrCat("Attach ", command.id.value(), " at ", command.offset);
}
std::string Line(const DetachCommand& command) { return absl::StrCat("Detach #", Value(command.key)); }
std::string Line(const GetGenerationCommand& command) { return absl::StrCat("Get ", command.id.value()); }
std::string Line(const ListGenerationsCommand& command) {
  return absl::StrCat("List after #", Value(command.after), " page_size=", command.page_size);
}
std::string Line(const GetEngineCommand&) { return "GetEngine"; }
std::string Line(const DrainCommand&) { return "Drain"; }
std::string Line(const KvMoveDone& command) {
  return absl::StrCat("KvMoveDone ", static_cast<int64_t>(command.id), " ", command.status.ToString());
}
std::string Line(const RestoreCommand& command) { return absl::StrCat("Restore ", command.parked.id.value()); }
std::string Line(const ParkAllCommand& command) { return absl::StrCat("ParkAll ", command.reason); }
std::string Line(const AbortAllCommand& command) { return absl::StrCat("AbortAll ", command.reason); }

std::string Line(const StateChanged& event) {
  return absl::StrCat("#", Value(event.key), event.info != nullptr ? " " : "",
                      event.info != nullptr ? event.info->id.value() : "", " ", Name(event.from), " -> ",
                      Name(event.to), " by ", Name(event.cause));
}
std::string Line(const TokenSampled& event) {
  return absl::StrCat("#", Value(event.key), " token ", event.offset, " is ", Value(event.token), " \"",
                      absl::CEscape(event.text), "\"");
}
std::string Line(const TextReleased& event) {
  return absl::StrCat("#", Value(event.key), " text \"", absl::CEscape(event.text), "\"");
}
std::string Line(const Progress& event) {
  return absl::StrCat("#", Value(event.key), " prefilled ", event.prefilled_token_count, ", output ",
                      event.output_token_count);
}
std::string Line(const KvMoved& event) {
  return absl::StrCat("#", Value(event.key), " moves ", event.block_count, " blocks from ", Name(event.from), " to ",
                      Name(event.to), event.error.empty() ? "" : ": ", event.error);
}
std::string Line(const PriorityChanged& event) {
  return absl::StrCat("#", Value(event.key), " has priority ", event.priority);
}

std::string Line(const std::vector<OperationResult>& results) {
  std::string line;
  for (const OperationResult& result : results) {
    absl::StrAppend(&line, " ", result.id.value(), "=", absl::StatusCodeToString(result.status.code()));
    if (!result.generation.has_value()) continue;
    absl::StrAppend(&line, ",", Name(result.generation->state), ",", result.generation->usage.output_token_count);
  }
  return line;
}
std::string Line(const GenerationPage& page) { return absl::StrCat(" a page of ", page.generations.size()); }
std::string Line(const SessionInfo& session) {
  return absl::StrCat(" session ", session.session_id, "@", session.epoch);
}
std::string Line(const EngineInfo& info) { return absl::StrCat(" ", info.device.free_count, " blocks free"); }

}  // namespace

std::string Describe(const Command& command) {
  return std::visit([](const auto& typed) { return Line(typed); }, command);
}

std::string Describe(const BatchSlice& slice) {
  return absl::StrCat("#", Value(slice.key), " computes ", slice.token_count, " from ", slice.first_position,
                      slice.sample ? ", samples" : "");
}

std::string Describe(const Event& event) {
  return std::visit([](const auto& typed) { return Line(typed); }, event);
}

std::string Describe(const Reply& reply) {
  if (!reply.status.ok()) {
    return absl::StrCat("reply ", static_cast<int64_t>(reply.ticket), ": ", reply.status.ToString());
  }
  return absl::StrCat("reply ", static_cast<int64_t>(reply.ticket), ":",
                      std::visit([](const auto& typed) { return Line(typed); }, reply.result));
}

void Trace::Add(absl::string_view line) {
  for (const char c : line) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 1099511628211u;
  hash_ = (hash_ ^ static_cast<unsigned char>('\n')) * 1099511628211u;
  if (verbose_) std::printf("%.*s\n", static_cast<int>(line.size()), line.data());
}

void Trace::Add(const std::vector<Command>& commands) {
  for (const Command& command : commands) Add(absl::StrCat("  > ", Describe(command)));
}

void Trace::Add(const Batch& batch) {
  Add(absl::StrCat("step ", batch.step));
  for (const BatchSlice& slice : batch.slices) Add(absl::StrCat("  = ", Describe(slice)));
}

void Trace::Add(const Report& report) {
  for (const Event& event : report.events) Add(absl::StrCat("  < ", Describe(event)));
  for (const KvMove& move : report.moves) {
    Add(absl::StrCat("  < move ", static_cast<int64_t>(move.id), " of ", move.generation_id.value(), ": ",
                     move.block_count, " blocks from ", Name(move.from), " to ", Name(move.to)));
  }
  for (const KvMoveId id : report.cancelled_moves) Add(absl::StrCat("  < cancels move ", static_cast<int64_t>(id)));
  for (const Reply& reply : report.replies) Add(absl::StrCat("  < ", Describe(reply)));
  for (const GenerationKey key : report.forgotten) Add(absl::StrCat("  < #", Value(key), " is forgotten"));
}

}  // namespace fermata
