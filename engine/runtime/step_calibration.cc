#include "engine/runtime/step_calibration.h"

#include <algorithm>
#include <vector>

namespace fermata {
namespace {

constexpr int32_t kUnit = 16;

// A step of so large a part of the target says what a whole one takes.
constexpr double kFairPart = 0.25;

// How often a step is timed before it is believed to be so slow: the machine may be busy for a moment.
constexpr int kTimings = 5;

// No more steps are timed once that many times the target have gone by: starting must not take long.
constexpr int kMostTargets = 3;

absl::StatusOr<absl::Duration> TimeStep(ModelRunner& runner, const Clock& clock, int32_t tokens, int32_t block_tokens) {
  const std::vector<TokenId> context(tokens, TokenId{0});
  std::vector<BlockId> blocks;
  for (int32_t block = 0; block * block_tokens < tokens; ++block) blocks.push_back(BlockId{block});
  const SamplingParams sampling;
  const BatchSlice slice = {.context = context,
                            .prompt_token_count = tokens,
                            .token_count = tokens,
                            .blocks = blocks,
                            .sample = true,
                            .sampling = &sampling};
  StepOutput output;
  const absl::Time begin = clock.Now();
  const absl::Status status = runner.Run({.step = 0, .slices = absl::MakeConstSpan(&slice, 1)}, &output);
  if (!status.ok()) return status;
  return clock.Now() - begin;
}

}  // namespace

absl::StatusOr<int32_t> CalibrateStepTokens(ModelRunner& runner, const Clock& clock, absl::Duration target,
                                            int32_t block_tokens, int32_t block_count, int32_t max_tokens) {
  const int64_t pool_tokens = int64_t{block_tokens} * block_count;
  const int32_t limit = static_cast<int32_t>(std::min<int64_t>(max_tokens, pool_tokens));
  const absl::Time end = clock.Now() + target * kMostTargets;
  // Tokens that fill the target at the best pace seen: others on the machine only ever slow a step down.
  double fitting = 0;
  int32_t tokens = std::min(kUnit, limit);
  int timings = 0;  // of steps of so many tokens
  // The first step of a process touches everything for the first time.
  bool warm = false;
  while (true) {
    const absl::StatusOr<absl::Duration> duration = TimeStep(runner, clock, tokens, block_tokens);
    if (!duration.ok()) return duration.status();
    const bool late = clock.Now() >= end;
    if (warm || late) {
      ++timings;
      fitting = std::max(fitting, tokens * absl::FDivDuration(target, std::max(*duration, absl::Microseconds(1))));
    }
    warm = true;
    if (late) break;
    if (timings > 0 && *duration < target * kFairPart && 2 * tokens <= limit) {
      tokens *= 2;
      timings = 0;
    } else if (timings == kTimings) {
      break;
    }
  }
  const int32_t units = static_cast<int32_t>(std::min<double>(fitting, max_tokens)) / kUnit;
  return std::clamp(units * kUnit, std::min(kUnit, max_tokens), max_tokens);
}

}  // namespace fermata
