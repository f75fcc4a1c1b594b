#include "engine/core/engine_options.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace fermata {
namespace {

constexpr int32_t kMaxRunning = 65536;
constexpr int32_t kMaxBlockTokens = 4096;
constexpr int32_t kNoLimit = std::numeric_limits<int32_t>::max();

absl::Status CheckRange(absl::string_view flag, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, " is ", value, "; allowed are ", least, " to ", most));
}

absl::Status CheckNotNegative(absl::string_view flag, absl::Duration value) {
  if (value >= absl::ZeroDuration()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " is ", absl::FormatDuration(value), "; it must not be negative"));
}

}  // namespace

absl::Status EngineOptions::Validate() const {
  const absl::Status results[] = {
      CheckRange("--max_running", max_running, 1, kMaxRunning),
      CheckRange("--max_queued", max_queued, 1, kNoLimit),
      CheckRange("--max_live", max_live, 1, kNoLimit),
      CheckRange("--context_tokens", context_tokens, 2, kNoLimit),
      CheckRange("--max_finished", max_finished, 0, kNoLimit),
      CheckRange("--block_tokens", block_tokens, 1, kMaxBlockTokens),
      CheckRange("block_count (--kv_bytes over the bytes of one block)", block_count, 1, kNoLimit),
      CheckRange("--step_tokens", step_tokens, 1, kNoLimit),
      CheckRange("first_revision", first_revision, 0, std::numeric_limits<int64_t>::max() / 2),
      CheckNotNegative("--disconnect_lease", disconnect_lease),
      CheckNotNegative("--finished_age", finished_age),
  };
  for (const absl::Status& result : results) {
    if (!result.ok()) return result;
  }
  return absl::OkStatus();
}

}  // namespace fermata
