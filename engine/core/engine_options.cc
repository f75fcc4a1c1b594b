#include "engine/core/engine_options.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace fermata {
namespace {

constexpr int32_t kMaxRunning = 65536;
constexpr int32_t kMaxBlockTokens = 4096;
constexpr int32_t kMaxClasses = 64;
constexpr int32_t kMaxAgingLevels = 1000;
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

absl::Status ValidateClasses(const EngineOptions& options) {
  const std::vector<TrafficClass>& classes = options.classes;
  int64_t reserved = 0;
  for (size_t i = 0; i < classes.size(); ++i) {
    const TrafficClass& one = classes[i];
    const std::string flag = absl::StrCat("--class=", one.name);
    if (one.name.empty()) return absl::InvalidArgumentError("--class: a name is needed");
    if (options.ClassIndex(one.name) != static_cast<int32_t>(i)) {
      return absl::InvalidArgumentError(absl::StrCat(flag, " is there twice"));
    }
    for (const absl::Status& result : {CheckRange(absl::StrCat(flag, ",max_running"), one.max_running, 1, kNoLimit),
                                       CheckRange(absl::StrCat(flag, ",max_kv_blocks"), one.max_kv_blocks, 1, kNoLimit),
                                       CheckRange(absl::StrCat(flag, ",reserved"), one.reserved, 0, one.max_running),
                                       CheckRange(absl::StrCat(flag, ",max_queued"), one.max_queued, 1, kNoLimit)}) {
      if (!result.ok()) return result;
    }
    reserved += one.reserved;
  }
  if (static_cast<int32_t>(classes.size()) > kMaxClasses) {
    return absl::InvalidArgumentError(
        absl::StrCat("--class is there ", classes.size(), " times; allowed are at most ", kMaxClasses));
  }
  return CheckRange("the sum of what --class reserves", reserved, 0, options.max_running);
}

}  // namespace

int32_t EngineOptions::ClassIndex(absl::string_view traffic_class) const {
  int32_t index = 0;
  while (index < static_cast<int32_t>(classes.size()) && classes[index].name != traffic_class) ++index;
  return index;
}

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
      CheckRange("least_demotion_blocks", least_demotion_blocks, 1, kNoLimit),
      CheckRange("first_revision", first_revision, 0, std::numeric_limits<int64_t>::max() / 2),
      CheckNotNegative("--disconnect_lease", disconnect_lease),
      CheckNotNegative("--finished_age", finished_age),
      CheckRange("--aging_levels", aging_levels, 1, kMaxAgingLevels),
      aging > absl::ZeroDuration() ? absl::OkStatus() : absl::InvalidArgumentError("--aging is 0; it must be above"),
      ValidateClasses(*this),
  };
  for (const absl::Status& result : results) {
    if (!result.ok()) return result;
  }
  return absl::OkStatus();
}

}  // namespace fermata
