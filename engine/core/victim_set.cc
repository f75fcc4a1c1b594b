#include "engine/core/victim_set.h"

namespace fermata {

void VictimSet::Add(Generation& generation) {
  victims_.push_back(&generation);
  Tally(generation, 1);
}

void VictimSet::Tally(const Generation& generation, int32_t sign) {
  freed_ += sign * generation.own_block_count();
  for (const PrefixCache::NodeId node : generation.kv.shared) {
    int32_t& released = released_[node];
    // It is free exactly while the last of its holders is counted in.
    const bool counts = count_ == Count::kHeld || released + (sign > 0 ? 1 : 0) == cache_.holder_count(node);
    freed_ += counts ? sign : 0;
    released += sign;
  }
}

void VictimSet::Spare(int64_t needed) {
  for (size_t i = victims_.size(); i-- > 0;) {
    Tally(*victims_[i], -1);
    if (freed_ >= needed) {
      victims_.erase(victims_.begin() + static_cast<int64_t>(i));
    } else {
      Tally(*victims_[i], 1);
    }
  }
}

}  // namespace fermata
