// The free list of a pool of KV blocks: the device's, the host's. Deals in block ids and counts alone: who holds a
// block, and what is in it, is known elsewhere.

#ifndef FERMATA_ENGINE_CORE_BLOCK_POOL_H_
#define FERMATA_ENGINE_CORE_BLOCK_POOL_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/core/ids.h"

namespace fermata {

// Deterministic: the same calls give the same ids. One thread.
class BlockPool {
 public:
  // REQUIRES: block_count >= 0.
  explicit BlockPool(int32_t block_count);

  int32_t block_count() const { return static_cast<int32_t>(is_free_.size()); }
  int32_t free_count() const { return static_cast<int32_t>(free_.size()); }

  // Takes `count` free blocks; the last released ones come first, for their memory may still be in a cache. O(count).
  // REQUIRES: 0 <= count <= free_count().
  std::vector<BlockId> Allocate(int64_t count);

  // Gives blocks back. Ends the process if one of them is free already or is none of this pool. O(count).
  void Release(absl::Span<const BlockId> blocks);

  bool IsFree(BlockId block) const { return is_free_[Value(block)]; }

 private:
  std::vector<BlockId> free_;  // a stack
  std::vector<bool> is_free_;  // by block id
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_BLOCK_POOL_H_
