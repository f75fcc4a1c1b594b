#include "engine/core/command_processor.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

absl::Status UnknownId(const GenerationId& id) {
  return absl::NotFoundError(absl::StrCat("generation \"", id.value(), "\" is not known, or no longer kept"));
}

absl::Status AlreadyFinished(const Generation& generation, absl::string_view verb) {
  return absl::FailedPreconditionError(
      absl::StrCat("generation \"", generation.id.value(), "\" is FINISHED: ", verb, " needs a live one"));
}

std::vector<OperationResult> One(OperationResult result) {
  std::vector<OperationResult> results;
  results.push_back(std::move(result));
  return results;
}

bool Matches(const Generation& generation, const ListGenerationsCommand& filter) {
  return (filter.states.empty() || absl::c_linear_search(filter.states, generation.state())) &&
         (filter.tenant.empty() || filter.tenant == generation.spec.tenant) &&
         (filter.traffic_class.empty() || filter.traffic_class == generation.spec.traffic_class);
}

}  // namespace

void CommandProcessor::Apply(Command command) {
  std::visit([this](auto& typed) { On(typed); }, command);
}

void CommandProcessor::On(EnqueueCommand& command) {
  // A known id comes before every limit: a retry must find what the first attempt made, also when full or draining.
  OperationResult result;
  result.id = command.id;
  Generation* generation = state_.table.Find(command.id);
  if (generation == nullptr) {
    result.status = CheckNew(command);
    if (result.status.ok()) {
      generation = &Create(command);
      result.created = true;
    }
  } else if (generation->body_digest != command.body_digest) {
    result.status = absl::AlreadyExistsError(
        absl::StrCat("generation \"", command.id.value(), "\" exists already, with another body"));
  }
  if (result.status.ok()) {
    if (command.attach_reader) AddReader(*generation);
    result.generation = generation->Describe(state_.journal.now());
  }
  state_.journal.Record(Reply{.ticket = command.ticket, .result = One(std::move(result))});
}

absl::Status CommandProcessor::CheckNew(const EnqueueCommand& command) const {
  // Before all else: whoever is refused for this may succeed elsewhere, whatever the rest says.
  if (state_.counters.draining) {
    return absl::UnavailableError(
        absl::StrCat("generation \"", command.id.value(), "\" is refused: the server is draining"));
  }
  const absl::Status fits = CheckFits(command);
  return fits.ok() ? CheckRoom(command) : fits;
}

absl::Status CommandProcessor::CheckFits(const EnqueueCommand& command) const {
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
  if (tokens > state_.options.context_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("generation \"", id, "\": ", prompt_tokens,
                                                   " prompt tokens and max_tokens=", max_tokens, " are ", tokens,
                                                   "; --context_tokens allows ", state_.options.context_tokens));
  }
  if (state_.BlockCountFor(tokens) > state_.pool.block_count()) {
    return absl::InvalidArgumentError(
        absl::StrCat("generation \"", id, "\": ", prompt_tokens, " prompt tokens and max_tokens=", max_tokens, " need ",
                     state_.BlockCountFor(tokens), " KV blocks; the whole device pool (--kv_bytes) has ",
                     state_.pool.block_count()));
  }
  return absl::OkStatus();
}

absl::Status CommandProcessor::CheckRoom(const EnqueueCommand& command) const {
  if (state_.live_count() >= state_.options.max_live) {
    return absl::ResourceExhaustedError(absl::StrCat("generation \"", command.id.value(), "\" is refused: --max_live=",
                                                     state_.options.max_live, " generations are live"));
  }
  // One that is held does not wait in the queue.
  if (!command.hold && state_.queued.size() >= state_.options.max_queued) {
    return absl::ResourceExhaustedError(absl::StrCat("generation \"", command.id.value(),
                                                     "\" is refused: --max_queued=", state_.options.max_queued,
                                                     " generations are queued"));
  }
  return absl::OkStatus();
}

Generation& CommandProcessor::Create(EnqueueCommand& command) {
  Generation& generation = state_.table.Insert(command.id);
  generation.body_digest = std::move(command.body_digest);
  generation.spec = std::move(command.spec);
  generation.context = std::exchange(generation.spec.prompt, {});
  generation.prompt_token_count = static_cast<int32_t>(generation.context.size());
  life_cycle_.Begin(generation, command.hold);
  return generation;
}

void CommandProcessor::On(PreemptCommand& command) {
  ForEach(command.ticket, command.ids, [&](Generation& generation) {
    if (!generation.live()) return AlreadyFinished(generation, "Preempt");
    life_cycle_.HoldByControl(generation, command.reason);
    return absl::OkStatus();
  });
}

void CommandProcessor::On(ContinueCommand& command) {
  ForEach(command.ticket, command.ids, [&](Generation& generation) {
    if (!generation.live()) return AlreadyFinished(generation, "Continue");
    life_cycle_.ReleaseHolds(generation, Cause::kContinue);
    return absl::OkStatus();
  });
}

void CommandProcessor::On(AbortCommand& command) {
  const std::string message = command.reason.empty() ? "aborted by request" : command.reason;
  ForEach(command.ticket, command.ids, [&](Generation& generation) {
    if (generation.live()) life_cycle_.Finish(generation, FinishReason::kAborted, Cause::kAbort, message);
    return absl::OkStatus();
  });
}

void CommandProcessor::On(SetPriorityCommand& command) {
  ForEach(command.ticket, command.ids, [&](Generation& generation) {
    if (!generation.live()) return AlreadyFinished(generation, "SetPriority");
    life_cycle_.SetPriority(generation, command.priority);
    return absl::OkStatus();
  });
}

void CommandProcessor::ForEach(Ticket ticket, const std::vector<GenerationId>& ids,
                               absl::FunctionRef<absl::Status(Generation&)> verb) {
  std::vector<OperationResult> results;
  results.reserve(ids.size());
  for (const GenerationId& id : ids) {
    OperationResult& result = results.emplace_back();
    result.id = id;
    Generation* generation = state_.table.Find(id);
    result.status = generation == nullptr ? UnknownId(id) : verb(*generation);
    if (result.status.ok()) result.generation = generation->Describe(state_.journal.now());
  }
  state_.journal.Record(Reply{.ticket = ticket, .result = std::move(results)});
}

void CommandProcessor::On(AttachCommand& command) {
  ForEach(command.ticket, {command.id}, [&](Generation& generation) {
    if (command.offset < 0 || command.offset > generation.output_token_count) {
      return absl::OutOfRangeError(absl::StrCat("offset is ", command.offset, "; generation \"", command.id.value(),
                                                "\" allows 0 to ", generation.output_token_count));
    }
    AddReader(generation);
    return absl::OkStatus();
  });
}

void CommandProcessor::AddReader(Generation& generation) {
  ++generation.reader_count;
  life_cycle_.ReleaseDisconnectHold(generation, Cause::kAttach);
}

void CommandProcessor::On(DetachCommand& command) {
  Generation* generation = state_.table.Find(command.key);
  if (generation == nullptr || generation->reader_count == 0) return;
  --generation->reader_count;
  if (generation->reader_count > 0 || !generation->live()) return;
  switch (generation->spec.on_disconnect) {
    case OnDisconnect::kAbort:
      life_cycle_.Finish(*generation, FinishReason::kAborted, Cause::kDisconnect, "the last reader left");
      break;
    case OnDisconnect::kPause:
      life_cycle_.HoldByDisconnect(*generation);
      break;
    case OnDisconnect::kContinue:
      break;
  }
}

void CommandProcessor::On(GetGenerationCommand& command) {
  ForEach(command.ticket, {command.id}, [](Generation&) { return absl::OkStatus(); });
}

void CommandProcessor::On(ListGenerationsCommand& command) {
  GenerationPage page;
  const size_t page_size = std::clamp(command.page_size, 1, ListGenerationsCommand::kMaxScanned);
  const GenerationTable::Map& all = state_.table.all();
  auto it = all.upper_bound(command.after);
  GenerationKey last = command.after;
  for (int scanned = 0; it != all.end() && scanned < ListGenerationsCommand::kMaxScanned; ++it, ++scanned) {
    if (page.generations.size() == page_size) break;
    const Generation& generation = *it->second;
    last = generation.key;
    if (Matches(generation, command)) page.generations.push_back(generation.Describe(state_.journal.now()));
  }
  // After the last one looked at, not the last one found: the next page need not look at them again.
  if (it != all.end()) page.next_after = last;
  state_.journal.Record(Reply{.ticket = command.ticket, .result = std::move(page)});
}

void CommandProcessor::On(GetEngineCommand& command) {
  EngineInfo info = state_.counters;
  info.block_count = state_.pool.block_count();
  info.block_free_count = state_.pool.free_count();
  info.step = state_.journal.step();
  state_.journal.Record(Reply{.ticket = command.ticket, .result = info});
}

void CommandProcessor::On(DrainCommand&) { state_.counters.draining = true; }

void CommandProcessor::On(AbortAllCommand& command) {
  // Finishing leaves the table as it is: what is finished is forgotten at the end of the boundary.
  for (const auto& [key, generation] : state_.table.all()) {
    if (!generation->live()) continue;
    life_cycle_.Finish(*generation, FinishReason::kAborted, Cause::kDrain, command.reason);
  }
}

}  // namespace fermata
