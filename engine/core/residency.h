// Where generations and their KV stand: queues, blocks of every tier, and the counts of both.

#ifndef FERMATA_ENGINE_CORE_RESIDENCY_H_
#define FERMATA_ENGINE_CORE_RESIDENCY_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/core/engine_state.h"
#include "engine/core/generation.h"
#include "engine/core/kv_move.h"

namespace fermata {

// The only writer of blocks, on all tiers. Passive: others decide when what moves.
//
// A generation's KV is on one tier, or its first blocks are on the device and the others on the host, or it moves: then
// both ends are held until EndMove(), it stands in no queue, and what others see is still the old place. To the host
// some of it may go, else all of it moves together. The device's blocks of one that ends while it moves belong to the
// move from then on.
class Residency {
 public:
  // Borrows `state`, which must outlive this.
  explicit Residency(EngineState& state) : state_(state) {}

  // Changes what decides on a generation's queues and counts: its state, order, tokens or KV.
  void Change(Generation& generation, absl::FunctionRef<void()> change);

  // The same when only its place in the order changes.
  void Reorder(Generation& generation, absl::FunctionRef<void()> change);

  // Gives one that has become RUNNING the device blocks that it lacks, see MissingBlockCount(); one without KV begins
  // with what the prefix cache has of its context. REQUIRES: they are there.
  void ReserveBlocks(Generation& generation);

  // Gives one that is RUNNING the block for its next token. REQUIRES: it lacks it, and there is one.
  void Grow(Generation& generation);

  // A RUNNING one cannot have that block now.
  void Stall(Generation& generation);

  // Lets go of all KV of a PREEMPTED one: it is to be computed again. REQUIRES: it has some on the device, and does not
  // move.
  void Drop(Generation& generation);

  // What its shared blocks are used for has changed with its state.
  void MoveShared(const Generation& generation, KvUse from, KvUse to);

  // Lets go of everything on every tier, of one that has ended.
  void ReleaseAll(Generation& generation, KvUse use);

  // Gives back the blocks of the device behind the first `keep`, of a generation that does not run. REQUIRES: it is not
  // moving, and those blocks hold no KV.
  void Trim(Generation& generation, int64_t keep);

  // Starts to move the KV of a generation that does not run; from the device to the host all but the first `keep`
  // blocks. REQUIRES: it is not moving, has such KV elsewhere than on `to`, and MoveHasRoom().
  void BeginMove(Generation& generation, KvTier to, int64_t keep = 0);

  // Whether `to` has room for that now.
  bool MoveHasRoom(const Generation& generation, KvTier to, int64_t keep = 0) const;

  // Makes a move that goes out come to nothing: the generation is wanted where it is.
  void CancelMove(Generation& generation);

  // The copy is done, or has failed. Returns the generation if it lives, with the KV at its new place, or, if the move
  // failed or was cancelled, at the old one.
  struct Ended {
    Generation* generation = nullptr;  // null: it has ended meanwhile
    KvTier from = KvTier::kNone;
    KvTier to = KvTier::kNone;
    int64_t block_count = 0;
    bool cancelled = false;
  };
  Ended EndMove(KvMoveId id, const absl::Status& status);

  // Puts a generation whose KV is in a file where that says. REQUIRES: it is in no queue yet.
  void AdoptFile(Generation& generation, int64_t block_count);

 private:
  void Enter(Generation& generation) { Count(generation, 1); }
  void Leave(Generation& generation) { Count(generation, -1); }

  // Puts it into its queues and counts (sign 1), or takes it out of all of them (-1).
  void Count(Generation& generation, int sign);
  void CountBlocks(const Generation& generation, int sign);
  void Place(Generation& generation, int sign);

  // The cached blocks that a generation's KV begins with are its own from now on, too: those that follow what it shares
  // already. REQUIRES: it has no block behind that.
  void TakeCached(Generation& generation, const std::vector<PrefixCache::NodeId>& nodes, KvUse use);

  // Fill in what goes where, and take the room there. `record` gets what will be free.
  void SendToHost(Generation& generation, KvMove& move, MoveRecord& record);
  void SendToDisk(Generation& generation, KvMove& move, MoveRecord& record);
  void BringBack(Generation& generation, KvMove& move);

  // The KV is where `record` says, or is not, and stays where it was.
  void Settle(Generation& generation, const MoveRecord& record, bool done);

  // So many blocks of the device that nobody holds. REQUIRES: they are there.
  std::vector<BlockId> TakeBlocks(int64_t count);

  // Blocks of the device that will be free if it gives up all but the first `keep`.
  int64_t FreeingCount(const HeldKv& kv, int64_t keep) const;

  // All but the first `keep`; the first `count`.
  void ReleaseDevice(HeldKv& kv, KvUse use, int64_t keep = 0);
  void ReleaseHost(HeldKv& kv, int64_t count);
  void ReleaseHost(HeldKv& kv) { ReleaseHost(kv, static_cast<int64_t>(kv.host_blocks.size())); }
  void DiscardFile(HeldKv& kv, const GenerationId& id);

  EngineState& state_;
};

// What a generation in this state does with its blocks; any for those that hold none.
KvUse UseOf(GenerationState state);

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_RESIDENCY_H_
