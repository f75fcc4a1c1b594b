#include "engine/runtime/engine_sizing.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

// What is left for the weights, the page cache that holds them, and everybody else.
constexpr int64_t kMemoryParts = 4;

int64_t DefaultKvBytes(const SizingFacts& facts, const EngineOptions& engine) {
  if (facts.device_bytes > 0) {
    const int64_t kept_free =
        facts.device_bytes - static_cast<int64_t>(facts.device_fraction * static_cast<double>(facts.device_bytes));
    return std::max<int64_t>(facts.available_bytes - kept_free, 0);
  }
  const int64_t all_slots = int64_t{engine.max_running} * engine.context_tokens * facts.kv_bytes_per_token;
  return std::min(all_slots, facts.available_bytes / kMemoryParts);
}

}  // namespace

absl::Status SizeEngine(const SizingFacts& facts, EngineOptions& engine) {
  if (engine.context_tokens == 0) engine.context_tokens = facts.model_context_tokens;
  if (engine.context_tokens > facts.model_context_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("--context_tokens is ", engine.context_tokens,
                                                   "; the model allows at most ", facts.model_context_tokens));
  }
  const int64_t kv_bytes = facts.kv_bytes > 0 ? facts.kv_bytes : DefaultKvBytes(facts, engine);
  const int64_t block_bytes = facts.kv_bytes_per_token * engine.block_tokens;
  const int64_t blocks = kv_bytes / block_bytes;
  if (blocks < 1 && facts.kv_bytes == 0 && facts.device_bytes > 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--gpu_memory_fraction is ", facts.device_fraction, " of ", facts.device_bytes, " bytes, of which ",
        facts.available_bytes, " are free beside the weights: no block of KV fits; one takes ", block_bytes));
  }
  if (blocks < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv_bytes is ", kv_bytes, ", which holds no block; one takes ", block_bytes));
  }
  engine.block_count = static_cast<int32_t>(std::min<int64_t>(blocks, std::numeric_limits<int32_t>::max()));
  return absl::OkStatus();
}

}  // namespace fermata
