// How large the engine is made where the operator did not say.

#ifndef FERMATA_ENGINE_RUNTIME_ENGINE_SIZING_H_
#define FERMATA_ENGINE_RUNTIME_ENGINE_SIZING_H_

#include <cstdint>

#include "absl/status/status.h"
#include "engine/core/engine_options.h"

namespace fermata {

// What sizes depend on.
struct SizingFacts {
  int32_t model_context_tokens = 0;  // what the model was made for
  int64_t kv_bytes_per_token = 0;
  int64_t kv_bytes = 0;         // as the operator wants it; 0: up to this function
  int64_t available_bytes = 0;  // of memory

  // Where the pool is in a device's memory: how much that has in all, and the part of it that the server is to use;
  // available_bytes is then what is free there. 0: it is in the host's.
  int64_t device_bytes = 0;
  double device_fraction = 0.9;
};

// Sets context_tokens (where 0: the model's) and block_count, from REQUIRES: max_running and block_tokens. Without a
// wish, the KV pool is what all slots could use, but at most a quarter of the memory available; on a
// device, all that is left of its fraction: the rest is for what a step needs. INVALID_ARGUMENT naming
// the flag if the context is beyond the model's, or if the pool holds no block.
absl::Status SizeEngine(const SizingFacts& facts, EngineOptions& engine);

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_ENGINE_SIZING_H_
