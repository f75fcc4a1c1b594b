#include "engine/core/verb_rules.h"

#include <string>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

using State = GenerationState;

absl::Status AlreadyFinished(const GenerationId& id, absl::string_view verb) {
  return absl::FailedPreconditionError(
      absl::StrCat("generation \"", id.value(), "\" is FINISHED: ", verb, " needs a live one"));
}

// A pause belongs to the session that made it; an operator may do anything.
absl::Status CheckHolder(const GenerationId& id, const Caller& caller, const Standing& standing) {
  if (!standing.held_by_control || standing.holder.empty() || caller.session_id.empty() ||
      standing.holder == caller.session_id) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("generation \"", id.value(), "\" is held by session \"", standing.holder, "\""));
}

absl::Status CheckTier(const GenerationId& id, KvTier tier, const EngineOptions& options) {
  const bool is_there = (tier != KvTier::kHost || options.host_block_count > 0) &&
                        (tier != KvTier::kDisk || options.disk_block_count > 0);
  if (is_there) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("generation \"", id.value(), "\": tier ", Name(tier),
                   " is not configured: ", tier == KvTier::kHost ? "--kv_host_bytes is 0" : "--kv_disk_dir is empty"));
}

// Whether the whole pool has room for so many tokens, and what the class may have of it.
absl::Status CheckBlocks(const GenerationId& id, const EngineState& state, int32_t class_index, int64_t tokens) {
  const int64_t blocks = state.BlockCountFor(tokens);
  if (blocks > state.pool.block_count()) {
    return absl::InvalidArgumentError(absl::StrCat("generation \"", id.value(), "\": ", tokens, " tokens need ", blocks,
                                                   " KV blocks; the whole device pool (--kv_bytes) has ",
                                                   state.pool.block_count()));
  }
  if (class_index < static_cast<int32_t>(state.options.classes.size())) {
    const TrafficClass& own = state.options.classes[class_index];
    if (blocks > own.max_kv_blocks) {
      return absl::InvalidArgumentError(absl::StrCat("generation \"", id.value(), "\": ", tokens, " tokens need ",
                                                     blocks, " KV blocks; --class=", own.name,
                                                     " allows max_kv_blocks=", own.max_kv_blocks));
    }
  }
  return absl::OkStatus();
}

// Whether prompt and output have room in the context and in the pool.
absl::Status CheckFits(const EnqueueCommand& command, const EngineState& state) {
  const std::string& id = command.id.value();
  const int64_t prompt_tokens = static_cast<int64_t>(command.spec.prompt.size());
  // In 64 bits: max_tokens may be as large as an int32 can be.
  const int64_t max_tokens = command.spec.sampling.max_tokens;
  if (id.empty()) return absl::InvalidArgumentError("generation_id is empty");
  if (prompt_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("generation \"", id, "\": the prompt has no tokens; at least 1 is needed"));
  }
  if (max_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("generation \"", id, "\": max_tokens is ", max_tokens, "; at least 1 is needed"));
  }
  const int64_t tokens = prompt_tokens + max_tokens;
  if (tokens > state.options.context_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("generation \"", id, "\": ", prompt_tokens,
                                                   " prompt tokens and max_tokens=", max_tokens, " are ", tokens,
                                                   "; --context_tokens allows ", state.options.context_tokens));
  }
  return CheckBlocks(command.id, state, state.options.ClassIndex(command.spec.traffic_class), tokens);
}

absl::Status CheckRoom(const EnqueueCommand& command, const EngineState& state, const Occupancy& occupancy) {
  if (occupancy.live_count >= state.options.max_live) {
    return absl::ResourceExhaustedError(absl::StrCat("generation \"", command.id.value(), "\" is refused: --max_live=",
                                                     state.options.max_live, " generations are live"));
  }
  // One that is held does not wait in the queue.
  if (command.hold) return absl::OkStatus();
  if (absl::c_accumulate(occupancy.queued_by_class, int64_t{0}) >= state.options.max_queued) {
    return absl::ResourceExhaustedError(absl::StrCat("generation \"", command.id.value(),
                                                     "\" is refused: --max_queued=", state.options.max_queued,
                                                     " generations are queued"));
  }
  const int32_t class_index = state.options.ClassIndex(command.spec.traffic_class);
  if (class_index == static_cast<int32_t>(state.options.classes.size())) return absl::OkStatus();
  const TrafficClass& own = state.options.classes[class_index];
  if (occupancy.queued_by_class[class_index] >= own.max_queued) {
    return absl::ResourceExhaustedError(absl::StrCat("generation \"", command.id.value(),
                                                     "\" is refused: --class=", own.name,
                                                     ",max_queued=", own.max_queued, " generations are queued"));
  }
  return absl::OkStatus();
}

absl::Status CheckNew(const EnqueueCommand& command, const EngineState& state, const Occupancy& occupancy) {
  // Before all else: whoever is refused for this may succeed elsewhere, whatever the rest says.
  if (state.counters.draining) {
    return absl::UnavailableError(
        absl::StrCat("generation \"", command.id.value(), "\" is refused: the server is draining"));
  }
  const absl::Status fits = CheckFits(command, state);
  return fits.ok() ? CheckRoom(command, state, occupancy) : fits;
}

// Whether a paused generation has room to go on, with what the command adds.
absl::Status CheckMore(const ContinueCommand& command, const EngineState& state, const GenerationId& id,
                       const Standing& standing) {
  const int64_t max_tokens = command.max_tokens.value_or(standing.max_tokens);
  if (max_tokens <= standing.output_token_count) {
    return absl::InvalidArgumentError(absl::StrCat("generation \"", id.value(), "\": max_tokens is ", max_tokens, "; ",
                                                   standing.output_token_count,
                                                   " output tokens exist, and it must be more"));
  }
  const int64_t tokens = standing.context_token_count - standing.output_token_count +
                         static_cast<int64_t>(TokensToAppend(command, standing).size()) + max_tokens;
  if (tokens > state.options.context_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("generation \"", id.value(), "\": with ", command.append.size(),
                                                   " tokens appended and max_tokens=", max_tokens, " it has ", tokens,
                                                   " tokens; --context_tokens allows ", state.options.context_tokens));
  }
  return CheckBlocks(id, state, standing.class_index, tokens);
}

}  // namespace

Standing StandingOf(const EngineState& state, const Generation& generation) {
  return {.state = generation.state(),
          .has_kv = generation.computed_token_count > 0,
          .held_by_control = generation.pause.by_control,
          .holder = generation.pause.session_id,
          .body_digest = generation.body_digest,
          .append_id = generation.append_id,
          .context_token_count =
              int64_t{generation.prompt_token_count} + generation.appended_token_count + generation.output_token_count,
          .output_token_count = generation.output_token_count,
          .max_tokens = generation.spec.sampling.max_tokens,
          .ends_turn = !generation.context.empty() && state.decoder.IsEndOfGeneration(generation.context.back()),
          .tenant = generation.spec.tenant,
          .traffic_class = generation.spec.traffic_class,
          .class_index = generation.class_index};
}

Occupancy OccupancyOf(const EngineState& state) {
  Occupancy occupancy = {.live_count = state.live_count(), .queued_by_class = {}};
  for (const ClassState& one : state.classes) occupancy.queued_by_class.push_back(one.queued_count);
  return occupancy;
}

absl::Status Judge(const EnqueueCommand& command, const EngineState& state, const Occupancy& occupancy,
                   Standing& standing) {
  // A known id comes before every limit: a retry must find what the first attempt made, also when full or draining.
  if (standing.state != State::kNone) {
    if (standing.body_digest == command.body_digest) {
      // A reader that comes ends a pause by disconnect.
      const bool resumes = command.attach_reader && standing.state == State::kPaused && !standing.held_by_control;
      if (resumes) standing.state = standing.has_kv ? State::kPreempted : State::kQueued;
      return absl::OkStatus();
    }
    return absl::AlreadyExistsError(
        absl::StrCat("generation \"", command.id.value(), "\" exists already, with another body"));
  }
  const absl::Status status = CheckNew(command, state, occupancy);
  if (!status.ok()) return status;
  standing = {.state = command.hold ? State::kPaused : State::kQueued,
              .held_by_control = command.hold,
              .holder = command.hold ? absl::string_view(command.caller.session_id) : absl::string_view(),
              .body_digest = command.body_digest,
              .context_token_count = static_cast<int64_t>(command.spec.prompt.size()),
              .max_tokens = command.spec.sampling.max_tokens,
              .tenant = command.spec.tenant,
              .traffic_class = command.spec.traffic_class,
              .class_index = state.options.ClassIndex(command.spec.traffic_class)};
  return absl::OkStatus();
}

absl::Status Judge(const PreemptCommand& command, const EngineState& state, const GenerationId& id,
                   Standing& standing) {
  if (standing.state == State::kNone) return UnknownGeneration(id);
  if (standing.state == State::kFinished) return AlreadyFinished(id, "Preempt");
  absl::Status status = CheckTier(id, command.tier, state.options);
  if (!status.ok()) return status;
  status = CheckHolder(id, command.caller, standing);
  if (!status.ok()) return status;
  if (!standing.held_by_control) standing.holder = command.caller.session_id;
  standing.held_by_control = true;
  standing.state = State::kPaused;
  return absl::OkStatus();
}

std::vector<TokenId> TokensToAppend(const ContinueCommand& command, const Standing& standing) {
  std::vector<TokenId> tokens;
  if (!command.append.empty() && !standing.ends_turn) tokens = command.turn_end;
  tokens.insert(tokens.end(), command.append.begin(), command.append.end());
  return tokens;
}

bool IsRepeated(const ContinueCommand& command, const Standing& standing) {
  return !command.append_id.empty() && command.append_id == standing.append_id;
}

absl::Status Judge(const ContinueCommand& command, const EngineState& state, const GenerationId& id,
                   Standing& standing) {
  if (standing.state == State::kNone) return UnknownGeneration(id);
  if (IsRepeated(command, standing)) return absl::OkStatus();
  if (standing.state == State::kFinished) return AlreadyFinished(id, "Continue");
  const absl::Status status = CheckHolder(id, command.caller, standing);
  if (!status.ok()) return status;
  if (standing.state != State::kPaused) {
    if (!command.with_more()) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat("generation \"", id.value(), "\" is ", Name(standing.state),
                                                      ": append and max_tokens need it PAUSED"));
  }
  const absl::Status room = CheckMore(command, state, id, standing);
  if (!room.ok()) return room;
  standing.max_tokens = command.max_tokens.value_or(standing.max_tokens);
  standing.context_token_count += static_cast<int64_t>(TokensToAppend(command, standing).size());
  if (!command.append.empty()) standing.append_id = command.append_id;
  standing.held_by_control = false;
  standing.holder = absl::string_view();
  standing.state = standing.has_kv ? State::kPreempted : State::kQueued;
  return absl::OkStatus();
}

absl::Status Judge(const AbortCommand& command, const EngineState&, const GenerationId& id, Standing& standing) {
  if (standing.state == State::kNone) return UnknownGeneration(id);
  if (standing.state == State::kFinished) return absl::OkStatus();
  const absl::Status status = CheckHolder(id, command.caller, standing);
  if (!status.ok()) return status;
  standing.held_by_control = false;
  standing.holder = absl::string_view();
  standing.state = State::kFinished;
  return absl::OkStatus();
}

absl::Status Judge(const SetPriorityCommand&, const EngineState&, const GenerationId& id, Standing& standing) {
  if (standing.state == State::kNone) return UnknownGeneration(id);
  return standing.state == State::kFinished ? AlreadyFinished(id, "SetPriority") : absl::OkStatus();
}

absl::Status UnknownGeneration(const GenerationId& id) {
  return absl::NotFoundError(absl::StrCat("generation \"", id.value(), "\" is not known, or no longer kept"));
}

bool Matches(const Selector& selector, const Standing& standing) {
  const bool state_matches =
      selector.states.empty() ? IsLive(standing.state) : absl::c_linear_search(selector.states, standing.state);
  return state_matches && (selector.tenant.empty() || selector.tenant == standing.tenant) &&
         (selector.traffic_class.empty() || selector.traffic_class == standing.traffic_class);
}

}  // namespace fermata
