// Of Observer: what it makes of KV that moves.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/sim/observer.h"

namespace fermata {

using State = GenerationState;

void Observer::OnTrimmed(const Progress& event, ObservedGeneration& generation) {
  if (event.prefilled_token_count + event.output_token_count + event.recomputed_token_count + event.cached_token_count >
      0) {
    violations_.Add(event.key, "progresses without a step");
  }
  if (generation.state == State::kRunning) violations_.Add(event.key, "gives blocks back while it runs");
  if (event.kv_blocks.total() != event.kv_blocks.device || event.kv_blocks.device < ComputedBlockCount(generation)) {
    violations_.Add(event.key, "gives back blocks that have KV");
  }
  ++totals_.trims;
  generation.block_count = event.kv_blocks.total();
}

int64_t Observer::ComputedBlockCount(const ObservedGeneration& generation) const {
  return (generation.computed_token_count + options_.block_tokens - 1) / options_.block_tokens;
}

void Observer::On(const KvMoved& event) {
  ObservedGeneration* generation = FindLive(event.key);
  if (generation == nullptr) return;
  moving_.erase(generation->id);
  if (in_step_) violations_.Add(event.key, "moves in a step");
  if (generation->state == State::kRunning) violations_.Add(event.key, "moves while it runs");
  // Of one that is on the device and on the host, more may go.
  const bool goes_on = event.from == KvTier::kDevice && event.to == KvTier::kHost && generation->kept_count > 0;
  if (event.from != generation->tier && !goes_on) {
    violations_.Add(event.key, absl::StrCat("moves from ", Name(event.from), "; it was on ", Name(generation->tier)));
  }
  const int64_t computed = ComputedBlockCount(*generation);
  const bool leaves_device = event.from == KvTier::kDevice && event.to == KvTier::kHost;
  const int64_t on_device = generation->tier == KvTier::kDevice ? computed : generation->kept_count;
  const int64_t kept = leaves_device ? on_device - event.block_count : 0;
  const bool comes_back = event.from == KvTier::kHost && event.to == KvTier::kDevice;
  const int64_t whole = comes_back ? computed - generation->kept_count : computed;
  if (leaves_device ? kept < 0 || kept >= on_device : event.block_count != whole) {
    violations_.Add(event.key, "moves another number of blocks than it has KV in");
  }
  if (!event.error.empty()) {
    generation->is_lost = event.from == KvTier::kDisk;
    return;
  }
  if (event.to == KvTier::kNone) {
    if (!options_.allow_recompute) violations_.Add(event.key, "is dropped against --allow_recompute");
    if (generation->state != State::kPreempted) violations_.Add(event.key, "is dropped while it does not wait");
    if (event.kv_blocks.total() != 0) violations_.Add(event.key, "is dropped and keeps blocks");
    ++totals_.drops;
    has_dropped_ = true;
    generation->recompute_end = std::max(generation->recompute_end, generation->computed_token_count);
    generation->computed_token_count = 0;
    generation->block_count = 0;
    generation->tier = KvTier::kNone;
    generation->kept_count = 0;
    return;
  }
  ++totals_.moves;
  totals_.parts += kept > 0;
  if (computed == 0) return;
  generation->tier = event.to;
  generation->kept_count = kept;
  if (event.to != KvTier::kDevice && event.kv_blocks.device != kept) {
    violations_.Add(event.key, "tells of other blocks that stayed than did");
  }
  // Back on the device it has room for more, as much as it was to get when the move began.
  generation->block_count = event.kv_blocks.total();
  const bool is_right =
      event.to == KvTier::kDevice ? event.kv_blocks.device >= computed : event.kv_blocks.total() == computed;
  if (!is_right) violations_.Add(event.key, "holds other blocks after a move");
}

}  // namespace fermata
