#include "engine/core/generation.h"

#include <algorithm>

namespace fermata {

int32_t Generation::GivenCount(int32_t begin, int32_t end) const {
  const auto overlap = [&](int32_t from, int32_t to) { return std::max(0, std::min(end, to) - std::max(begin, from)); };
  int32_t count = overlap(0, prompt_token_count);
  for (const TokenRange& range : appended) count += overlap(range.begin, range.end);
  return count;
}

GenerationInfo Generation::Describe(absl::Time now) const {
  GenerationInfo info;
  info.key = key;
  info.id = id;
  info.priority = spec.priority;
  info.tenant = spec.tenant;
  info.traffic_class = spec.traffic_class;
  info.labels = spec.labels;
  info.kv_tier = blocks.empty() ? KvTier::kNone : KvTier::kDevice;
  info.kv_block_count = static_cast<int64_t>(blocks.size());
  info.usage.prompt_token_count = prompt_token_count;
  info.usage.cached_token_count = cached_token_count;
  info.usage.appended_token_count = appended_token_count;
  info.usage.prefilled_token_count = prefilled_token_count;
  info.usage.output_token_count = output_token_count;
  info.pause = pause;
  info.create_time = create_time;
  info.revision = revision;
  life.Describe(now, &info);
  return info;
}

}  // namespace fermata
