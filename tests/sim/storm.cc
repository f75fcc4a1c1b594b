#include "tests/sim/storm.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "tests/fakes/fake_token_decoder.h"

namespace fermata {
namespace {

constexpr int kTurnsOfWeather = 40;  // between storm and lull
constexpr int kRecent = 12;          // ids that are likely to live
constexpr int kDrainTurns = 60;      // from the drain to its end
constexpr absl::string_view kTenants[] = {"red", "blue", "green"};
constexpr absl::string_view kClasses[] = {"", "interactive", "batch"};

GenerationId IdOf(absl::string_view prefix, int64_t number) {
  return *GenerationId::Parse(absl::StrCat(prefix, number));
}

}  // namespace

EngineOptions Storm::RandomOptions(SimRandom& random) {
  const auto pick = [&](int64_t least, int64_t most) { return static_cast<int32_t>(random.Uniform(least, most)); };
  EngineOptions options;
  options.policy = random.OneIn(5) ? SchedulePolicy::kFcfs : SchedulePolicy::kPriority;
  options.displacement = random.OneIn(4) ? Displacement::kNever : Displacement::kRunning;
  options.disconnect_lease = absl::Milliseconds(pick(1, 200));
  options.max_running = pick(1, 6);
  options.max_queued = pick(1, 12);
  options.max_live = pick(4, 24);
  options.max_finished = pick(0, 20);
  options.finished_age = absl::Milliseconds(pick(10, 1000));
  options.block_tokens = pick(1, 8);
  options.block_count = pick(16, 160);
  options.context_tokens = pick(16, 96);
  options.step_tokens = pick(1, 40);
  options.allow_recompute = random.OneIn(3);
  if (random.OneIn(2)) {
    // Just room for the longest: blocks run out all the time.
    const int32_t longest = (options.context_tokens + options.block_tokens - 1) / options.block_tokens;
    options.block_count = longest + pick(0, 6);
  }
  options.first_revision = pick(1, 1000);
  if (random.OneIn(3)) {
    TrafficClass interactive = {.name = "interactive", .reserved = pick(0, options.max_running - 1)};
    if (random.OneIn(2)) interactive.max_queued = pick(1, 6);
    TrafficClass batch = {.name = "batch", .max_running = pick(1, options.max_running)};
    if (random.OneIn(2)) batch.max_kv_blocks = pick(1, options.block_count);
    options.classes = {interactive, batch};
  }
  if (random.OneIn(2)) options.prefix_sharing = random.OneIn(2) ? PrefixSharing::kTenant : PrefixSharing::kAll;
  if (random.OneIn(2)) {
    options.host_block_count = random.OneIn(3) ? 0 : pick(1, 120);
    options.disk_block_count = random.OneIn(3) ? 0 : pick(1, 300);
  }
  if (random.OneIn(6)) {
    options.aging = absl::Milliseconds(pick(1, 50));
    options.aging_levels = pick(1, 4);
  }
  options.least_demotion_blocks = random.OneIn(2) ? 1 : pick(1, 16);
  return options;
}

Storm::Storm(const EngineOptions& options, SimRandom& random, Observer& observer, const VerbOracle& oracle)
    : options_(options),
      random_(random),
      observer_(observer),
      oracle_(oracle),
      hold_period_(random.Uniform(4, 30)),
      abort_period_(random.Uniform(1, 6)),
      timeout_period_(random.Uniform(4, 40)),
      session_period_(random.Uniform(1, 12)),
      drain_turn_(random.OneIn(6) ? random.Uniform(100, 400) : 0),
      aborts_all_(random.OneIn(2)) {}

std::vector<Command> Storm::Commands() {
  std::vector<Command> commands;
  ++turn_;
  const bool lull = turn_ / kTurnsOfWeather % 3 == 2;
  while (!random_.OneIn(lull ? 2 : 3)) {
    const int64_t kind = random_.Uniform(0, 22);
    if (kind < 7) {
      commands.push_back(MakeEnqueue());
    } else if (kind < 14) {
      commands.push_back(std::visit([](auto&& verb) { return Command(verb); }, MakeVerb()));
    } else if (kind < 18) {
      commands.push_back(MakeReader());
    } else if (kind < 20) {
      commands.push_back(MakeQuestion());
    } else {
      commands.push_back(random_.OneIn(2) ? MakeApply() : MakeSession());
    }
  }
  if (drain_turn_ != 0 && turn_ == drain_turn_) commands.push_back(DrainCommand());
  if (drain_turn_ != 0 && turn_ == drain_turn_ + kDrainTurns && aborts_all_) {
    commands.push_back(AbortAllCommand{"the drain has lasted too long"});
  }
  return commands;
}

std::vector<Command> Storm::ContinueAll() {
  std::vector<Command> commands;
  for (const auto& [key, generation] : observer_.generations()) {
    if (generation.state != GenerationState::kPaused) continue;
    // One that is held on stop would be so again.
    if (generation.spec.hold_on_stop) {
      commands.push_back(AbortCommand{NextTicket(), {generation.id}});
    } else {
      commands.push_back(ContinueCommand{NextTicket(), {generation.id}});
    }
  }
  return commands;
}

GenerationSpec Storm::RandomSpec() {
  GenerationSpec spec;
  // Now and then one that does not fit.
  const int64_t half = options_.context_tokens / 2;
  // Many begin alike.
  const int64_t length = random_.Uniform(1, random_.OneIn(12) ? 2 * half + 4 : half);
  const int64_t alike = random_.OneIn(2) ? random_.Uniform(0, length) : 0;
  for (int64_t n = 0; n < alike; ++n) spec.prompt.push_back(AlikeToken(n));
  for (int64_t n = alike; n < length; ++n) {
    spec.prompt.push_back(TokenId{static_cast<int32_t>(random_.Index(FakeTokenDecoder::kVocabularySize))});
  }
  SamplingParams& sampling = spec.sampling;
  sampling.max_tokens = static_cast<int32_t>(random_.Uniform(1, half));
  sampling.seed = static_cast<uint64_t>(random_.Uniform(0, 3));
  sampling.ignore_eos = random_.OneIn(2);
  if (random_.OneIn(3)) sampling.stop = {random_.OneIn(2) ? "ab" : "e", "bac", "\xE2\x82\xAC"};
  if (random_.OneIn(6)) {
    sampling.stop_token_ids = {TokenId{static_cast<int32_t>(random_.Index(FakeTokenDecoder::kVocabularySize))}};
  }
  if (random_.OneIn(5)) sampling.logprobs = static_cast<int32_t>(random_.Uniform(0, 3));
  spec.priority = RandomPriority();
  if (random_.OneIn(timeout_period_)) spec.timeout = absl::Milliseconds(random_.Uniform(1, 300));
  constexpr OnDisconnect kActions[] = {OnDisconnect::kAbort, OnDisconnect::kContinue, OnDisconnect::kPause};
  spec.on_disconnect = kActions[random_.Index(3)];
  spec.hold_on_stop = random_.OneIn(10);
  spec.tenant = std::string(kTenants[random_.Index(std::size(kTenants))]);
  spec.traffic_class = std::string(kClasses[random_.Index(std::size(kClasses))]);
  return spec;
}

Storm::Request Storm::NewRequest() {
  Request request;
  request.id = IdOf("g", static_cast<int64_t>(requests_.size()));
  request.spec = RandomSpec();
  request.digest = request.id.value();
  request.hold = random_.OneIn(hold_period_);
  // The same for a later retry: an id that was forgotten may be used again.
  observer_.Expect(request.id, request.spec);
  requests_.push_back(request);
  return request;
}

EnqueueCommand Storm::MakeEnqueue() {
  const bool again = !requests_.empty() && random_.OneIn(8);
  Request request = again ? requests_[random_.Index(requests_.size())] : NewRequest();
  if (again && random_.OneIn(3)) request.digest += "with another body";
  return EnqueueCommand{.ticket = NextTicket(),
                        .id = request.id,
                        .spec = request.spec,
                        .body_digest = request.digest,
                        .hold = request.hold,
                        .attach_reader = random_.OneIn(2),
                        .lease = request.hold ? RandomLease() : Lease(),
                        .caller = request.hold ? RandomCaller() : Caller()};
}

GenerationId Storm::RandomId() {
  const int64_t count = static_cast<int64_t>(requests_.size());
  if (random_.OneIn(30)) return IdOf("nobody", 0);
  if (count == 0 || random_.OneIn(30)) return IdOf("g", count);  // too early
  const int64_t oldest = random_.OneIn(10) ? 0 : std::max<int64_t>(0, count - kRecent);
  return requests_[random_.Uniform(oldest, count - 1)].id;
}

std::vector<GenerationId> Storm::RandomIds() {
  std::vector<GenerationId> ids;
  for (int64_t n = random_.OneIn(5) ? random_.Uniform(0, 8) : 1; n > 0; --n) ids.push_back(RandomId());
  return ids;
}

std::optional<Selector> Storm::RandomSelector() {
  if (!random_.OneIn(8)) return std::nullopt;
  Selector selector;
  selector.tenant = std::string(kTenants[random_.Index(std::size(kTenants))]);
  if (random_.OneIn(2)) selector.traffic_class = "batch";
  if (random_.OneIn(2)) selector.states = {GenerationState::kPaused, GenerationState::kQueued};
  if (random_.OneIn(4)) selector.states = {GenerationState::kFinished};
  return selector;
}

Caller Storm::RandomCaller() {
  const auto& sessions = oracle_.world().sessions();
  if (!random_.OneIn(session_period_)) return {};
  if (sessions.empty() || random_.OneIn(10)) return {"nobody's", 1};
  auto session = sessions.begin();
  std::advance(session, random_.Index(sessions.size()));
  return {session->first, session->second.epoch - (random_.OneIn(10) ? 1 : 0)};
}

KvTier Storm::RandomTier() {
  constexpr KvTier kTiers[] = {KvTier::kDevice, KvTier::kHost, KvTier::kDisk};
  return random_.OneIn(3) ? kTiers[random_.Index(std::size(kTiers))] : KvTier::kNone;
}

Lease Storm::RandomLease() {
  Lease lease;
  if (random_.OneIn(4)) lease.duration = absl::Milliseconds(random_.Uniform(1, 60));
  if (random_.OneIn(6)) lease.on_expiry = OnLeaseExpiry::kAbort;
  return lease;
}

Operation Storm::MakeVerb() {
  const int64_t kind = random_.Uniform(0, 9);
  if (kind < 3) {
    return PreemptCommand{.ticket = NextTicket(),
                          .ids = RandomIds(),
                          .reason = random_.OneIn(2) ? "" : "somebody else's turn",
                          .tier = RandomTier(),
                          .lease = RandomLease(),
                          .selector = RandomSelector(),
                          .caller = RandomCaller()};
  }
  if (kind >= 7 && kind < 9) {
    return SetPriorityCommand{NextTicket(), RandomIds(), RandomPriority(), RandomSelector(), RandomCaller()};
  }
  if (kind == 9 && random_.OneIn(abort_period_)) {
    // Not by a selector: too few would be left.
    return AbortCommand{NextTicket(), RandomIds(), random_.OneIn(2) ? "" : "enough", std::nullopt, RandomCaller()};
  }
  return random_.OneIn(3) ? MakeContinueWithMore()
                          : ContinueCommand{NextTicket(), RandomIds(), RandomSelector(), RandomCaller()};
}

ContinueCommand Storm::MakeContinueWithMore() {
  ContinueCommand command = {.ticket = NextTicket(), .ids = {RandomId()}, .caller = RandomCaller()};
  for (int64_t n = random_.Uniform(0, 6); n > 0; --n) {
    command.append.push_back(TokenId{static_cast<int32_t>(random_.Index(FakeTokenDecoder::kVocabularySize))});
  }
  if (!command.append.empty() && random_.OneIn(2)) command.append_id = absl::StrCat("turn-", random_.Uniform(0, 2));
  if (random_.OneIn(2)) command.max_tokens = static_cast<int32_t>(random_.Uniform(1, options_.context_tokens / 2));
  return command;
}

Command Storm::MakeApply() {
  ApplyCommand apply;
  for (int64_t n = random_.Uniform(1, 6); n > 0; --n) {
    apply.operations.push_back(random_.OneIn(3) ? Operation(MakeEnqueue()) : MakeVerb());
  }
  apply.ticket = NextTicket();
  apply.atomic = random_.OneIn(2);
  apply.caller = RandomCaller();
  return apply;
}

Command Storm::MakeSession() {
  const std::string id = absl::StrCat("s", random_.Uniform(0, 2));
  const int64_t kind = random_.Uniform(0, 5);
  if (kind < 2) {
    return OpenSessionCommand{NextTicket(), id, absl::Milliseconds(random_.Uniform(5, 200)), random_.OneIn(3)};
  }
  Caller caller = RandomCaller();
  if (caller.session_id.empty()) caller = {id, 1};
  if (kind < 5) return KeepSessionAliveCommand{NextTicket(), caller};
  return CloseSessionCommand{NextTicket(), caller};
}

Command Storm::MakeReader() {
  const std::vector<GenerationKey> with_readers = oracle_.WithReaders();
  if (random_.OneIn(2) && !with_readers.empty()) return DetachCommand{with_readers[random_.Index(with_readers.size())]};
  // One that perhaps never had a reader, or is not known.
  if (random_.OneIn(10))
    return DetachCommand{GenerationKey{random_.Uniform(-1, static_cast<int64_t>(requests_.size()))}};
  return AttachCommand{NextTicket(), RandomId(), random_.OneIn(3) ? random_.Uniform(-1, 8) : 0};
}

Command Storm::MakeQuestion() {
  if (random_.OneIn(3)) return GetEngineCommand{NextTicket()};
  if (random_.OneIn(4)) return SnapshotCommand{NextTicket()};
  if (random_.OneIn(2)) return GetGenerationCommand{NextTicket(), RandomId()};
  ListGenerationsCommand list;
  list.ticket = NextTicket();
  list.after = GenerationKey{random_.Uniform(-1, static_cast<int64_t>(requests_.size()))};
  list.page_size = static_cast<int32_t>(random_.Uniform(1, 8));
  if (random_.OneIn(2)) {
    list.states = {static_cast<GenerationState>(random_.Uniform(1, kGenerationStateCount - 1)),
                   GenerationState::kRunning};
  }
  return list;
}

}  // namespace fermata
