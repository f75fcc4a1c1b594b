// Those that are to give up their blocks of the device, and how many that makes free.

#ifndef FERMATA_ENGINE_CORE_VICTIM_SET_H_
#define FERMATA_ENGINE_CORE_VICTIM_SET_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/core/generation.h"
#include "engine/core/prefix_cache.h"

namespace fermata {

// Nobody is touched: a plan. A block that several share is free when all who hold it are in the set.
class VictimSet {
 public:
  // What is counted: blocks that anybody may have then; or all that the victims hold, for the cap of their class.
  enum class Count { kFree, kHeld };

  // Borrows `cache`, which must outlive this and not change.
  VictimSet(const PrefixCache& cache, Count count) : cache_(cache), count_(count) {}

  struct Victim {
    Generation* generation;
    int64_t keep;  // of its blocks, from the beginning, stay with it
  };

  // Those whom it suits best to lose first. REQUIRES: not in the set yet.
  void Add(Generation& generation, int64_t keep = 0);

  // Lets go of whom the others can do without if `needed` blocks are to be freed, the last added first; then lets the
  // last one keep what is more than that, but for `least` of its blocks. PAUSED ones keep nothing by that: nobody
  // misses it. O(blocks held).
  void Spare(int64_t needed, int64_t least);

  int64_t freed() const { return freed_; }
  const std::vector<Victim>& victims() const { return victims_; }

 private:
  // Counts it in (sign 1) or out (-1).
  void Tally(const Victim& victim, int32_t sign);

  const PrefixCache& cache_;
  const Count count_;
  std::vector<Victim> victims_;
  absl::flat_hash_map<PrefixCache::NodeId, int32_t> released_;  // by how many of the victims
  int64_t freed_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_VICTIM_SET_H_
