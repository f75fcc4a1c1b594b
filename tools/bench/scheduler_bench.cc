// Measures what a step costs the engine itself: a model that takes no time, `--running` generations that decode, and
// more and more that wait or rest. A step must cost O(what runs), so the numbers must not grow with --idle.
//
//   bazel run --config=opt //tools/bench:scheduler_bench -- --running=256 --idle=1000,100000
//
// Prints one JSON object a line: medians and 99th percentiles over `--steps` steps, in microseconds.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "engine/core/engine.h"

ABSL_FLAG(int32_t, running, 256, "generations that run in every step");
ABSL_FLAG(std::vector<std::string>, idle, std::vector<std::string>({"1000", "100000"}),
          "how many wait, then how many are paused: one line for each of both");
ABSL_FLAG(int32_t, steps, 2000, "steps measured");

namespace fermata {
namespace {

constexpr int32_t kPromptTokens = 16;
constexpr int32_t kBlockTokens = 16;

class WordDecoder : public TokenDecoder {
 public:
  int32_t vocabulary_size() const override { return 1; }
  absl::string_view Bytes(TokenId) const override { return " word"; }
  bool IsEndOfGeneration(TokenId) const override { return false; }
};

class InstantRunner : public ModelRunner {
 public:
  absl::Status Run(const Batch& batch, StepOutput* output) override {
    output->sampled.clear();
    for (size_t i = 0; i < batch.slices.size(); ++i) {
      if (batch.slices[i].sample) output->sampled.emplace_back().slice = static_cast<int32_t>(i);
    }
    return absl::OkStatus();
  }
};

Command Enqueue(const std::string& id, int32_t max_tokens, bool hold) {
  EnqueueCommand command;
  command.id = *GenerationId::Parse(id);
  command.hold = hold;
  command.spec.prompt.assign(kPromptTokens, TokenId{0});
  command.spec.sampling.max_tokens = max_tokens;
  return command;
}

double Percentile(std::vector<double> values, double share) {
  const size_t at = std::min(values.size() - 1, static_cast<size_t>(share * values.size()));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[at];
}

void Measure(int32_t running, int32_t idle, bool paused, int32_t steps) {
  const int32_t max_tokens = steps + 100;
  EngineOptions options;
  options.max_running = running;
  options.max_queued = options.max_live = running + idle + 1;
  options.context_tokens = kPromptTokens + max_tokens;
  options.block_tokens = kBlockTokens;
  options.block_count = running * (options.context_tokens / kBlockTokens + 1);
  options.step_tokens = running * kPromptTokens;
  const WordDecoder decoder;
  InstantRunner runner;
  Engine engine(options, decoder);
  absl::Time now = absl::UnixEpoch();

  std::vector<Command> commands;
  for (int32_t i = 0; i < running; ++i) commands.push_back(Enqueue(absl::StrCat("r", i), max_tokens, false));
  engine.Step(now, std::move(commands), runner);
  commands.clear();
  for (int32_t i = 0; i < idle; ++i) commands.push_back(Enqueue(absl::StrCat("i", i), max_tokens, paused));
  engine.Step(now, std::move(commands), runner);

  std::vector<double> micros;
  for (int32_t step = 0; step < steps; ++step) {
    now += absl::Milliseconds(1);
    const auto begin = std::chrono::steady_clock::now();
    {
      const Report report = engine.Step(now, {}, runner);
      if (report.events.size() != 2 * static_cast<size_t>(running)) std::abort();
    }
    micros.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
  }
  absl::PrintF(
      "{\"bench\":\"scheduler\",\"running\":%d,\"%s\":%d,\"steps\":%d,\"step_us_p50\":%.1f,\"step_us_p99\":%.1f}\n",
      running, paused ? "paused" : "waiting", idle, steps, Percentile(micros, 0.5), Percentile(micros, 0.99));
  std::fflush(stdout);
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  for (const std::string& text : absl::GetFlag(FLAGS_idle)) {
    int32_t idle = 0;
    if (!absl::SimpleAtoi(text, &idle) || idle < 0) {
      absl::FPrintF(stderr, "--idle: \"%s\" is not a number\n", text);
      return 2;
    }
    for (const bool paused : {false, true}) {
      fermata::Measure(absl::GetFlag(FLAGS_running), idle, paused, absl::GetFlag(FLAGS_steps));
    }
  }
  return 0;
}
