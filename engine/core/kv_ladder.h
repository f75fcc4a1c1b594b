// Sees to it that there are blocks for whoever is to run: decides whose KV goes to another tier, whose comes back, and
// whose is dropped. The ladder is device, host, disk.

#ifndef FERMATA_ENGINE_CORE_KV_LADDER_H_
#define FERMATA_ENGINE_CORE_KV_LADDER_H_

#include <cstdint>
#include <vector>

#include "engine/core/commands.h"
#include "engine/core/engine_state.h"
#include "engine/core/generation.h"
#include "engine/core/life_cycle.h"
#include "engine/core/residency.h"
#include "engine/core/scheduler.h"
#include "engine/core/victim_set.h"

namespace fermata {

// Blocks are taken on demand: one that runs takes one when its next token has no room, before every step and before
// anybody is admitted. Demotion is lazy: KV leaves the device when somebody who runs or is to run lacks the room, and
// then in this order:
//
//   1. of PAUSED ones, least recently paused first;
//   2. of PREEMPTED ones behind it in the order, least urgent first;
//   3. of RUNNING ones, least urgent, newest first, which are displaced: for one that waits those that are strictly
//   less
//      urgent; for one that runs all behind it in the order, for nothing would go on else.
//
// Of those the smallest set that suffices is worked out before anybody is touched; if all would not suffice, nobody is.
// Blocks that nobody refers to, the prefix cache's, have gone before all that. The host takes what leaves the device;
// where it is full, what has been paused longest there goes on to the disk; where that cannot be, the device's goes to
// the disk at once; where that cannot be either, what is not PAUSED is dropped if EngineOptions::allow_recompute says
// so, and computed again later.
//
// A RUNNING one that finds no block stands still: it keeps its slot, and its place before all that wait. If others run
// ahead of it and none behind it, it is displaced instead, keeps its KV, and is admitted again when there is room for
// it and for one token more, so nobody is sent to and fro. Where a class is at its cap, only its own give way.
//
// What is to run and is elsewhere comes back when there is room, before the step that needs it; others run meanwhile.
//
// A PAUSED one's KV moves as a whole. One that waits or runs gives to the host just enough, from its end, and no less
// than EngineOptions::least_demotion_blocks; blocks in which nothing is computed yet are free without a copy. Where the
// host has room for a part only, that part goes. The disk takes all or nothing.
class KvLadder {
 public:
  // How long nothing is written to the disk after a failure there, unless it is asked for by name.
  static constexpr absl::Duration kDiskRetryPeriod = absl::Seconds(1);

  // Borrows all; they must outlive this.
  KvLadder(EngineState& state, Residency& residency, LifeCycle& life_cycle, Scheduler& scheduler)
      : state_(state), residency_(residency), life_cycle_(life_cycle), scheduler_(scheduler) {}

  // Gives blocks to those that run, and starts the moves that are due: at the end of a boundary. O(what runs, and what
  // moves), however many rest, unless blocks are short.
  void Plan();

  // A move is over. One that was to come back and cannot ends with ERROR: its KV is lost.
  void OnDone(const KvMoveDone& done);

 private:
  // A move that is to be started; to kNone: it is to be dropped. One without room yet waits for others to leave the
  // host.
  struct Step {
    Generation* generation = nullptr;
    KvTier to = KvTier::kNone;
    int64_t keep = 0;  // see Residency::BeginMove()
  };

  // What moves would leave free, beside those that are under way.
  struct Room {
    int64_t host = 0;
    int64_t disk = 0;
    RestingSet::const_iterator next_on_host;  // the next to leave it for the disk
  };

  // For those that run; for those that are to; and for classes that are at their caps.
  void Grow();
  void MakeRoom();
  void MakeRoomInClasses();
  void ServeRequests();

  // Gives it its block, if there is one.
  bool TryGrow(Generation& generation);

  // Tries to find it one; else it stands still, or is displaced. `promised` are blocks that will be free, and that
  // others have been promised.
  void GrowOrStall(Generation& generation, int64_t* promised);

  // Looks for what frees `shortage` blocks for `wanting`, or with kHeld those of its class, and starts it. False, and
  // nothing has changed, if it cannot be found.
  bool Free(const Generation& wanting, int64_t shortage, VictimSet::Count count, int64_t* freed);

  // Adds who may give way for `wanting` until `shortage` blocks would be free.
  void AddVictims(const Generation& wanting, int64_t shortage, VictimSet::Count count, VictimSet& victims);

  // Whether KV of the class of `generation` is on its way out.
  bool ClassIsLeaving(const Generation& generation) const;

  bool MayDrop(const Generation& generation) const;

  // Where the KV of `generation` can go, to the host without what is in the first `keep` blocks; appends what has to
  // leave the host before. kNone: nowhere.
  KvTier PlaceFor(const Generation& generation, int64_t keep, Room& room, std::vector<Step>& steps);

  // Whether `running` may be displaced for `wanting`, beside those that are `victims` already.
  bool MayDisplace(const Generation& running, const Generation& wanting, const VictimSet& victims) const;
  Room RoomNow();
  void Start(const std::vector<Step>& steps);

  EngineState& state_;
  Residency& residency_;
  LifeCycle& life_cycle_;
  Scheduler& scheduler_;
  std::vector<Generation*> growing_;  // kept for its memory alone
  int64_t promised_ = 0;              // blocks on their way that those which stand still will get
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_KV_LADDER_H_
