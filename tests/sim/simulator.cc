#include "tests/sim/simulator.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "glog/logging.h"

namespace fermata {
namespace {

// No storm lasts longer than this without commands, whatever it left behind.
constexpr int kMaxStepsToEnd = 20000;

}  // namespace

Simulator::Simulator(const SimulatorOptions& options)
    : options_(options),
      random_(options.seed),
      engine_options_(RandomOptions(random_)),
      runner_(RunnerOptions()),
      engine_(engine_options_, decoder_),
      observer_(engine_options_, decoder_),
      faults_(OneIn(4)) {}

EngineOptions Simulator::RandomOptions(std::mt19937_64& random) {
  const auto pick = [&](int64_t least, int64_t most) {
    return static_cast<int32_t>(std::uniform_int_distribution<int64_t>(least, most)(random));
  };
  EngineOptions options;
  options.policy = pick(1, 5) == 1 ? SchedulePolicy::kFcfs : SchedulePolicy::kPriority;
  options.displacement = pick(1, 4) == 1 ? Displacement::kNever : Displacement::kRunning;
  options.disconnect_lease = absl::Milliseconds(pick(1, 200));
  options.max_running = pick(1, 6);
  options.max_queued = pick(1, 12);
  options.max_live = pick(4, 24);
  options.max_finished = pick(1, 20);
  options.finished_age = absl::Milliseconds(pick(10, 1000));
  options.block_tokens = pick(1, 8);
  options.block_count = pick(16, 160);
  options.context_tokens = pick(16, 96);
  options.step_tokens = pick(1, 40);
  options.first_revision = pick(1, 1000);
  return options;
}

FakeModelRunnerOptions Simulator::RunnerOptions() {
  FakeModelRunnerOptions options;
  options.block_count = engine_options_.block_count;
  options.block_tokens = engine_options_.block_tokens;
  options.max_step_tokens = engine_options_.step_tokens;
  options.max_rows = engine_options_.max_running;
  options.before_run = [this](const Batch&) {
    return faults_ && OneIn(150) ? absl::InternalError("the device is gone") : absl::OkStatus();
  };
  options.before_sample = [this](const BatchSlice&) {
    return faults_ && OneIn(150) ? absl::InternalError("not a number") : absl::OkStatus();
  };
  return options;
}

int64_t Simulator::Uniform(int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(random_);
}

GenerationSpec Simulator::RandomSpec() {
  GenerationSpec spec;
  // Now and then one that does not fit.
  const int64_t longest = OneIn(12) ? engine_options_.context_tokens + 4 : engine_options_.context_tokens / 2;
  for (int64_t n = Uniform(1, longest); n > 0; --n) {
    spec.prompt.push_back(TokenId{static_cast<int32_t>(Uniform(0, FakeTokenDecoder::kVocabularySize - 1))});
  }
  spec.sampling.max_tokens = static_cast<int32_t>(Uniform(1, engine_options_.context_tokens / 2));
  spec.sampling.seed = static_cast<uint64_t>(Uniform(0, 3));
  spec.sampling.ignore_eos = OneIn(2);
  if (OneIn(3)) spec.sampling.stop = {OneIn(2) ? "ab" : "e", "bac", "\xE2\x82\xAC"};
  if (OneIn(6)) spec.sampling.stop_token_ids = {TokenId{static_cast<int32_t>(Uniform(0, 62))}};
  if (OneIn(5)) spec.sampling.logprobs = 2;
  spec.priority = static_cast<int32_t>(Uniform(-1, 3));
  if (OneIn(10)) spec.timeout = absl::Milliseconds(Uniform(1, 300));
  constexpr OnDisconnect kActions[] = {OnDisconnect::kAbort, OnDisconnect::kContinue, OnDisconnect::kPause};
  spec.on_disconnect = kActions[Uniform(0, 2)];
  return spec;
}

void Simulator::MakeEnqueue() {
  Client client;
  if (!clients_.empty() && OneIn(8)) {
    // The same again, or the same id with another body.
    client = clients_[Uniform(0, static_cast<int64_t>(clients_.size()) - 1)];
    if (OneIn(2)) client.digest += "x";
  } else {
    client.id = *GenerationId::Parse(absl::StrCat("g", clients_.size()));
    client.spec = RandomSpec();
    client.digest = client.id.value();
    client.hold = OneIn(8);
    observer_.Expect(client.id, client.spec);
    clients_.push_back(client);
  }
  const Ticket ticket = NextTicket();
  const bool attach = OneIn(2);
  if (attach) attach_tickets_[ticket] = true;
  commands_.push_back(EnqueueCommand{.ticket = ticket,
                                     .id = client.id,
                                     .spec = client.spec,
                                     .body_digest = client.digest,
                                     .hold = client.hold,
                                     .attach_reader = attach});
}

std::vector<GenerationId> Simulator::RandomIds() {
  std::vector<GenerationId> ids;
  for (int64_t n = OneIn(5) ? Uniform(1, 6) : 1; n > 0; --n) {
    if (clients_.empty() || OneIn(20)) {
      ids.push_back(*GenerationId::Parse("nobody"));
    } else {
      // Recent ones mostly: the others are long finished.
      const int64_t last = static_cast<int64_t>(clients_.size()) - 1;
      ids.push_back(clients_[Uniform(std::max<int64_t>(0, last - (OneIn(10) ? last : 12)), last)].id);
    }
  }
  return ids;
}

void Simulator::MakeVerb() {
  const Ticket ticket = NextTicket();
  switch (Uniform(0, 9)) {
    case 0:
    case 1:
      commands_.push_back(PreemptCommand{ticket, RandomIds(), OneIn(2) ? "" : "because"});
      break;
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
      commands_.push_back(ContinueCommand{ticket, RandomIds()});
      break;
    case 7:
      if (OneIn(3)) commands_.push_back(AbortCommand{ticket, RandomIds(), "enough"});
      break;
    case 8:
      commands_.push_back(SetPriorityCommand{ticket, RandomIds(), static_cast<int32_t>(Uniform(-1, 3))});
      break;
    default:
      if (OneIn(3)) {
        ListGenerationsCommand list;
        list.ticket = ticket;
        list.page_size = 3;
        commands_.push_back(list);
      } else if (OneIn(2)) {
        commands_.push_back(GetEngineCommand{ticket});
      } else {
        commands_.push_back(GetGenerationCommand{ticket, RandomIds()[0]});
      }
  }
}

void Simulator::MakeReader() {
  if (OneIn(2) || readers_.empty()) {
    const Ticket ticket = NextTicket();
    attach_tickets_[ticket] = true;
    commands_.push_back(AttachCommand{ticket, RandomIds()[0], Uniform(0, 6)});
    return;
  }
  auto reader = readers_.begin();
  std::advance(reader, Uniform(0, static_cast<int64_t>(readers_.size()) - 1));
  commands_.push_back(DetachCommand{reader->first});
  if (--reader->second == 0) readers_.erase(reader);
}

void Simulator::MakeCommands() {
  // Storms and lulls: whole seconds of either let queues fill and run empty.
  const bool lull = steps_ / 40 % 3 == 2;
  while (!OneIn(lull ? 2 : 3)) {
    const int64_t kind = Uniform(0, 9);
    if (kind < 4) {
      MakeEnqueue();
    } else if (kind < 8) {
      MakeVerb();
    } else {
      MakeReader();
    }
  }
  if (OneIn(3000)) commands_.push_back(DrainCommand());
}

void Simulator::Turn(bool with_commands) {
  now_ += absl::Microseconds(Uniform(0, 4000));
  if (with_commands) MakeCommands();
  Report boundary = engine_.Boundary(now_, std::exchange(commands_, {}));
  CountReaders(boundary);
  Observe(std::move(boundary), /*is_step=*/false);
  if (failed()) return;
  const bool has_work = engine_.HasWork();
  const Batch* batch = engine_.Prepare(now_);
  if (has_work != (batch != nullptr)) violations_.push_back("HasWork() and Prepare() do not agree");
  if (batch != nullptr) RunBatch(*batch);
}

void Simulator::RunBatch(const Batch& batch) {
  observer_.OnBatch(batch);
  std::vector<BatchSlice> slices(batch.slices.begin(), batch.slices.end());
  const BlockId other_block{static_cast<int32_t>(Uniform(0, engine_options_.block_count - 1))};
  std::vector<BlockId> wrong_blocks;
  for (BatchSlice& slice : slices) {
    if (mutated_) continue;
    if (options_.mutation == Mutation::kSwapBlocks && slice.first_position > 1 && slice.blocks[0] != other_block) {
      wrong_blocks.assign(slice.blocks.begin(), slice.blocks.end());
      wrong_blocks[0] = other_block;
      slice.blocks = wrong_blocks;
      mutated_ = true;
    } else if (options_.mutation == Mutation::kForgetPosition && slice.token_count > 1) {
      // The first of its tokens is left out.
      ++slice.first_position;
      --slice.token_count;
      mutated_ = true;
    }
  }
  const absl::Status status = runner_.Run({.step = batch.step, .slices = slices}, &output_);
  now_ += absl::Microseconds(Uniform(0, 2000));
  ++steps_;
  Observe(engine_.Complete(now_, status, output_), /*is_step=*/true);
}

void Simulator::CountReaders(const Report& report) {
  for (const Reply& reply : report.replies) {
    if (!attach_tickets_.contains(reply.ticket)) continue;
    const auto& results = std::get<std::vector<OperationResult>>(reply.result);
    if (results.size() == 1 && results[0].status.ok()) ++readers_[results[0].generation->key];
    attach_tickets_.erase(reply.ticket);
  }
}

void Simulator::Mutate(Report& report) {
  if (mutated_) return;
  std::vector<Event>& events = report.events;
  for (size_t i = 0; i < events.size() && !mutated_; ++i) {
    if (const auto* token = std::get_if<TokenSampled>(&events[i])) {
      last_token_ = *token;
      if (options_.mutation == Mutation::kRepeatToken) {
        events.insert(events.begin() + static_cast<int64_t>(i), Event(last_token_));
        mutated_ = true;
      } else if (options_.mutation == Mutation::kLoseText && !token->text.empty()) {
        std::get<TokenSampled>(events[i]).text.pop_back();
        mutated_ = true;
      }
    } else if (const auto* change = std::get_if<StateChanged>(&events[i])) {
      const StateChanged copy = *change;
      if (copy.to == GenerationState::kFinished && options_.mutation == Mutation::kDropFinish) {
        events.erase(events.begin() + static_cast<int64_t>(i));
        mutated_ = true;
      } else if (copy.to == GenerationState::kFinished && options_.mutation == Mutation::kRepeatFinish) {
        events.insert(events.begin() + static_cast<int64_t>(i), Event(copy));
        mutated_ = true;
      } else if (copy.to == GenerationState::kPaused && copy.from == GenerationState::kRunning &&
                 options_.mutation == Mutation::kTokenWhilePaused) {
        TokenSampled late;
        late.key = copy.key;
        late.offset = copy.info->usage.output_token_count;
        events.push_back(late);
        mutated_ = true;
      }
    }
  }
  if (options_.mutation == Mutation::kSkipRevision && steps_ > 20 && !events.empty()) {
    ++report.revision;
    mutated_ = true;
  }
  if (options_.mutation != Mutation::kWrongAck) return;
  for (Reply& reply : report.replies) {
    auto* results = std::get_if<std::vector<OperationResult>>(&reply.result);
    if (results == nullptr || results->empty() || !results->front().generation.has_value() || mutated_) continue;
    ++results->front().generation->usage.output_token_count;
    mutated_ = true;
  }
}

void Simulator::Observe(Report report, bool is_step) {
  if (options_.mutation != Mutation::kNone) Mutate(report);
  observer_.OnReport(report, is_step);
  if (options_.verbose) {
    std::printf("step %lld: %zu events, %zu replies, %lld live\n", static_cast<long long>(report.step),
                report.events.size(), report.replies.size(), static_cast<long long>(observer_.live_count()));
  }
  Collect();
}

void Simulator::Collect() {
  violations_.insert(violations_.end(), observer_.violations().begin(), observer_.violations().end());
  violations_.insert(violations_.end(), runner_.violations().begin(), runner_.violations().end());
  const absl::Status status = engine_.CheckInvariants();
  if (!status.ok()) violations_.push_back(std::string(status.message()));
}

void Simulator::LetEverythingEnd() {
  faults_ = false;
  for (int turn = 0; turn < kMaxStepsToEnd && observer_.live_count() > 0 && !failed(); ++turn) {
    if (turn % 50 == 0) {
      // Pauses end with Continue; one begun by a disconnect may come at any time.
      for (const auto& [key, generation] : observer_.generations()) {
        if (generation.state != GenerationState::kPaused) continue;
        commands_.push_back(ContinueCommand{NextTicket(), {generation.id}});
      }
    }
    Turn(/*with_commands=*/false);
  }
  if (!failed() && observer_.live_count() > 0) {
    violations_.push_back(absl::StrCat(observer_.live_count(), " generations never end"));
  }
}

SimulatorResult Simulator::Run() {
  for (int turn = 0; turn < options_.steps && !failed(); ++turn) Turn(/*with_commands=*/true);
  LetEverythingEnd();
  SimulatorResult result;
  result.violations = violations_;
  result.steps = steps_;
  result.generations = static_cast<int64_t>(observer_.generations().size());
  for (const auto& [key, generation] : observer_.generations()) {
    result.displacements += generation.preemption_count;
    result.pauses += generation.pause_count;
  }
  result.trace_hash = observer_.trace_hash();
  return result;
}

}  // namespace fermata
