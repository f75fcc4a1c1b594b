// Goal: on the real kernels, through the whole engine, no pause changes a token or a log-probability, whenever it
// comes, wherever the KV went meanwhile and whoever is beside: the outputs are those of undisturbed runs. Method: a
// small model of random weights; generations with all kinds of sampling, each first alone, then together, with few
// slots, small steps and few blocks, while a client pauses, parks, continues and reorders them at random.
//
//   pause_check cpu|cuda [ROUNDS [SEED]]      on CUDA in batch-invariant mode

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/load_model.h"
#include "engine/runtime/clock.h"
#include "engine/runtime/engine_runtime.h"
#include "engine/runtime/kv_tiers.h"
#include "engine/runtime/report_observer.h"
#include "glog/logging.h"
#include "tests/fakes/tiny_model.h"
#include "tests/kernels/cuda/shared_runner.h"

namespace fermata {
namespace {

constexpr int32_t kBlockTokens = 16;
constexpr int32_t kBlockCount = 110;
constexpr int32_t kContextTokens = 512;
constexpr int32_t kMaxStepTokens = 256;
constexpr int32_t kGenerations = 16;
constexpr int32_t kSlots = 5;
// Of the host's memory: enough for all, so that none is ended since no tier has room for it.
constexpr int32_t kHostBlocks = kGenerations * kContextTokens / kBlockTokens;

struct Output {
  std::vector<TokenId> tokens;
  std::vector<TokenLogprobs> logprobs;
  bool finished = false;

  bool operator==(const Output& other) const {
    return finished && other.finished && tokens == other.tokens && logprobs.size() == other.logprobs.size() &&
           std::equal(
               logprobs.begin(), logprobs.end(), other.logprobs.begin(),
               [](const TokenLogprobs& a, const TokenLogprobs& b) { return a.logprob == b.logprob && a.top == b.top; });
  }
};

// An engine, and what it said.
class Run : private ReportObserver {
 public:
  Run(EngineOptions options, int64_t host_bytes, const LoadedModel& model, ModelRunner& runner) {
    auto shared = std::make_unique<SharedRunner>(runner);
    absl::StatusOr<KvTiers> tiers = OpenKvTiers({.host_bytes = host_bytes}, *shared, options);
    CHECK(tiers.ok()) << tiers.status();
    const absl::Status valid = options.Validate();
    CHECK(valid.ok()) << valid;
    runtime_ = std::make_unique<EngineRuntime>(
        EngineRuntime::Options{.engine = options, .observer = this, .tiers = *std::move(tiers)}, *model.tokenizer,
        std::move(shared), clock_);
  }
  ~Run() override { runtime_.reset(); }

  template <typename TypedCommand>
  void Send(TypedCommand command) {
    const absl::Status status = runtime_->Submit(std::move(command), [](const Reply*, std::shared_ptr<TokenLog>) {});
    CHECK(status.ok()) << status;
  }

  bool finished(size_t count) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return finished_ >= count;
  }

  // In the order in which they were asked for, once all have ended.
  std::vector<Output> Finish(size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    CHECK(changed_.wait_for(lock, std::chrono::minutes(3), [&] { return finished_ >= count; })) << "waited in vain";
    std::vector<Output> outputs;
    for (auto& [key, output] : outputs_) outputs.push_back(output);
    return outputs;
  }

  int64_t moves() const { return moves_; }
  int64_t pauses() const { return pauses_; }

 private:
  void OnReport(const Report& report, absl::Time, absl::Duration) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Event& event : report.events) {
      if (const auto* sampled = std::get_if<TokenSampled>(&event)) {
        Output& output = outputs_[sampled->key];
        output.tokens.push_back(sampled->token);
        if (sampled->logprobs.has_value()) output.logprobs.push_back(*sampled->logprobs);
      } else if (const auto* change = std::get_if<StateChanged>(&event)) {
        pauses_ += change->to == GenerationState::kPaused;
        if (change->to != GenerationState::kFinished) continue;
        CHECK(change->info->finish_reason == FinishReason::kLength ||
              change->info->finish_reason == FinishReason::kAborted)
            << change->info->error_message;
        outputs_[change->key].finished = change->info->finish_reason == FinishReason::kLength;
        ++finished_;
      } else if (std::get_if<KvMoved>(&event) != nullptr) {
        ++moves_;
      }
    }
    changed_.notify_all();
  }

  MonotonicClock clock_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<GenerationKey, Output> outputs_;  // guarded by mutex_, as is the rest
  size_t finished_ = 0;
  int64_t moves_ = 0;
  int64_t pauses_ = 0;
  std::unique_ptr<EngineRuntime> runtime_;  // the first to go
};

GenerationId IdOf(int32_t index) { return *GenerationId::Parse(absl::StrCat("g", index)); }

SamplingParams RandomSampling(std::mt19937& random) {
  SamplingParams sampling;
  sampling.max_tokens = 30 + static_cast<int32_t>(random() % 50);
  sampling.ignore_eos = true;
  sampling.seed = random();
  sampling.temperature = random() % 3 == 0 ? 0.0f : 0.8f;
  if (random() % 3 == 0) sampling.top_k = 1 + static_cast<int32_t>(random() % 40);
  if (random() % 3 == 0) sampling.top_p = 0.9f;
  if (random() % 4 == 0) sampling.min_p = 0.05f;
  if (random() % 4 == 0) sampling.repetition_penalty = 1.2f;
  if (random() % 4 == 0) sampling.frequency_penalty = 0.4f;
  if (random() % 4 == 0) sampling.presence_penalty = 0.3f;
  if (random() % 4 == 0) sampling.logit_bias = {{TokenId{5}, 2.0f}, {TokenId{17}, -3.0f}};
  if (random() % 3 == 0) sampling.logprobs = static_cast<int32_t>(random() % 5);
  return sampling;
}

std::vector<GenerationSpec> RandomSpecs(std::mt19937& random) {
  std::vector<GenerationSpec> specs(kGenerations);
  for (GenerationSpec& spec : specs) {
    // Some have several tiles of attention.
    const uint32_t length = random() % 4 == 0 ? 180 + random() % 240 : 1 + random() % 150;
    for (uint32_t i = 0; i < length; ++i) spec.prompt.push_back(TokenId{static_cast<int32_t>(random() % 256)});
    spec.sampling = RandomSampling(random);
    spec.priority = static_cast<int32_t>(random() % 3);
  }
  return specs;
}

EngineOptions Options(int32_t slots, int32_t step_tokens) {
  EngineOptions options;
  options.max_running = slots;
  options.context_tokens = kContextTokens;
  options.block_tokens = kBlockTokens;
  options.block_count = kBlockCount;
  options.step_tokens = step_tokens;
  options.prefix_sharing = PrefixSharing::kOff;
  return options;
}

std::vector<Output> Undisturbed(const std::vector<GenerationSpec>& specs, const LoadedModel& model,
                                ModelRunner& runner) {
  Run run(Options(/*slots=*/1, kMaxStepTokens), 0, model, runner);
  for (size_t i = 0; i < specs.size(); ++i) run.Send(EnqueueCommand{.id = IdOf(int32_t(i)), .spec = specs[i]});
  return run.Finish(specs.size());
}

std::vector<Output> Disturbed(const std::vector<GenerationSpec>& specs, const LoadedModel& model, ModelRunner& runner,
                              std::mt19937& random, std::string* what) {
  const int32_t step_tokens = 16 + static_cast<int32_t>(random() % 100);
  Run run(Options(kSlots, step_tokens), kHostBlocks * runner.kv_block_bytes(), model, runner);
  size_t asked = 0;
  while (!run.finished(specs.size())) {
    if (asked < specs.size() && random() % 3 == 0) {
      run.Send(EnqueueCommand{.id = IdOf(int32_t(asked)), .spec = specs[asked]});
      ++asked;
    }
    if (asked == 0) continue;
    const std::vector<GenerationId> ids = {IdOf(static_cast<int32_t>(random() % asked))};
    const uint32_t verb = random() % 8;
    if (verb < 3) {
      run.Send(PreemptCommand{.ids = ids, .tier = random() % 2 == 0 ? KvTier::kNone : KvTier::kHost});
    } else if (verb < 7) {
      run.Send(ContinueCommand{.ids = ids});
    } else {
      run.Send(SetPriorityCommand{.ids = ids, .priority = static_cast<int32_t>(random() % 3)});
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
  }
  std::vector<Output> outputs = run.Finish(specs.size());
  *what = absl::StrCat(run.pauses(), " pauses, ", run.moves(), " moves of KV, steps of ", step_tokens);
  return outputs;
}

int Check(bool cuda, int rounds, uint32_t seed) {
  TinyModelOptions tiny;
  tiny.layer_count = 3;
  tiny.embedding_size = 256;
  tiny.feed_forward_size = 384;
  const absl::StatusOr<LoadedModel> model = LoadModel({.path = WriteTinyModel(tiny),
                                                       .device = cuda ? Device::kCuda : Device::kCpu,
                                                       .batch_invariant = true,
                                                       .threads = 2});
  if (absl::IsUnavailable(model.status())) {
    std::printf("skipped: %s\n", std::string(model.status().message()).c_str());
    return 0;
  }
  CHECK(model.ok()) << model.status();
  absl::StatusOr<std::unique_ptr<ModelRunner>> runner =
      model->make_runner(kBlockCount, kBlockTokens, kMaxStepTokens, kSlots);
  CHECK(runner.ok()) << runner.status();
  std::mt19937 random(seed);
  int passed = 0;
  int failed = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::vector<GenerationSpec> specs = RandomSpecs(random);
    const std::vector<Output> expected = Undisturbed(specs, *model, **runner);
    std::string what;
    const std::vector<Output> actual = Disturbed(specs, *model, **runner, random, &what);
    CHECK_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < specs.size(); ++i) {
      const bool same = actual[i] == expected[i];
      ++(same ? passed : failed);
      if (!same) std::printf("FAILED seed %u round %d generation %zu\n", seed, round, i);
    }
    std::printf("{\"check\":\"pauses\",\"backend\":\"%s\",\"seed\":%u,\"round\":%d,\"what\":\"%s\"}\n",
                cuda ? "cuda" : "cpu", seed, round, what.c_str());
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  FLAGS_logtostderr = true;
  FLAGS_minloglevel = 1;
  google::InitGoogleLogging(argv[0]);
  const std::string backend = argc > 1 ? argv[1] : "";
  if (backend != "cpu" && backend != "cuda") {
    std::fprintf(stderr, "usage: pause_check cpu|cuda [ROUNDS [SEED]]\n");
    return 2;
  }
  const uint32_t seed = argc > 3 ? static_cast<uint32_t>(std::atoi(argv[3])) : std::random_device()();
  return fermata::Check(backend == "cuda", argc > 2 ? std::atoi(argv[2]) : 3, seed);
}
