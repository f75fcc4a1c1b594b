#include "engine/core/block_pool.h"

#include "engine/core/check.h"

namespace fermata {

BlockPool::BlockPool(int32_t block_count) {
  FERMATA_CHECK(block_count >= 0);
  is_free_.resize(block_count, true);
  free_.reserve(block_count);
  // Highest first, so that the first one dealt is block 0.
  for (int32_t block = block_count - 1; block >= 0; --block) free_.push_back(BlockId{block});
}

std::vector<BlockId> BlockPool::Allocate(int64_t count) {
  FERMATA_CHECK(count >= 0 && count <= free_count());
  const auto first = free_.end() - count;
  std::vector<BlockId> blocks(free_.rbegin(), free_.rbegin() + count);
  free_.erase(first, free_.end());
  for (const BlockId block : blocks) is_free_[Value(block)] = false;
  return blocks;
}

void BlockPool::Release(absl::Span<const BlockId> blocks) {
  for (const BlockId block : blocks) {
    FERMATA_CHECK(Value(block) >= 0 && Value(block) < block_count());
    FERMATA_CHECK(!is_free_[Value(block)]);
    is_free_[Value(block)] = true;
    free_.push_back(block);
  }
}

}  // namespace fermata
