#include "engine/core/generation.h"

#include <algorithm>

#include "absl/algorithm/container.h"

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
  info.kv_tier = kv.tier;
  info.kv_blocks = kv_block_counts();
  info.usage.prompt_token_count = prompt_token_count;
  info.usage.cached_token_count = cached_token_count;
  info.usage.appended_token_count = appended_token_count;
  info.usage.prefilled_token_count = prefilled_token_count;
  info.usage.recomputed_token_count = recomputed_token_count;
  info.usage.output_token_count = output_token_count;
  info.pause = pause;
  info.create_time = create_time;
  info.revision = revision;
  life.Describe(now, &info);
  return info;
}

KvBlockCounts Generation::kv_block_counts() const {
  KvBlockCounts counts;
  if (kv.tier == KvTier::kDevice) counts.device = static_cast<int64_t>(kv.blocks.size());
  if (kv.tier == KvTier::kHost) {
    counts.device = kv.kept_count;
    counts.host = static_cast<int64_t>(kv.host_blocks.size()) - kv.arriving_count;
  }
  if (kv.tier == KvTier::kDisk) counts.disk = kv.file_block_count;
  return counts;
}

ParkedGeneration Generation::Park(absl::Time now) const {
  const GenerationInfo info = Describe(now);
  return {.id = id,
          .body_digest = body_digest,
          .spec = spec,
          .context = context,
          .appended = appended,
          .append_id = append_id,
          .text_begins = text_begins,
          .computed_token_count = computed_token_count,
          .held_finish = held_finish,
          .usage = info.usage,
          .pause_reason = pause.reason,
          .lease = pause.lease_duration,
          .on_lease_expiry = pause.on_lease_expiry,
          .session_id = pause.session_id,
          .session_ttl = pause.session_ttl,
          .create_time = create_time,
          .start_time = info.start_time};
}

bool IsStopToken(const Generation& generation, const TokenDecoder& decoder, TokenId token) {
  const SamplingParams& sampling = generation.spec.sampling;
  if (!sampling.ignore_eos && decoder.IsEndOfGeneration(token)) return true;
  return absl::c_linear_search(sampling.stop_token_ids, token);
}

}  // namespace fermata
