#include "engine/core/victim_set.h"

#include <algorithm>

namespace fermata {

void VictimSet::Add(Generation& generation, int64_t keep) {
  victims_.push_back({&generation, keep});
  Tally(victims_.back(), 1);
}

void VictimSet::Tally(const Victim& victim, int32_t sign) {
  const HeldKv& kv = victim.generation->kv;
  const int64_t shared = static_cast<int64_t>(kv.shared.size());
  freed_ += sign * (static_cast<int64_t>(kv.blocks.size()) - std::max(victim.keep, shared));
  for (int64_t i = victim.keep; i < shared; ++i) {
    int32_t& released = released_[kv.shared[i]];
    // It is free exactly while the last of its holders is counted in.
    const bool counts = count_ == Count::kHeld || released + (sign > 0 ? 1 : 0) == cache_.holder_count(kv.shared[i]);
    freed_ += counts ? sign : 0;
    released += sign;
  }
}

void VictimSet::Spare(int64_t needed, int64_t least) {
  for (size_t i = victims_.size(); i-- > 0;) {
    Tally(victims_[i], -1);
    if (freed_ >= needed) {
      victims_.erase(victims_.begin() + static_cast<int64_t>(i));
    } else {
      Tally(victims_[i], 1);
    }
  }
  if (victims_.empty()) return;
  Victim& last = victims_.back();
  if (last.generation->state() == GenerationState::kPaused) return;
  Tally(last, -1);
  const HeldKv& kv = last.generation->kv;
  // Of blocks that it shares it is not certain what they would free.
  const int64_t keep = static_cast<int64_t>(kv.blocks.size()) - std::max(needed - freed_, least);
  if (keep >= static_cast<int64_t>(kv.shared.size())) last.keep = std::max(last.keep, keep);
  Tally(last, 1);
}

}  // namespace fermata
