// Decides whose KV goes to another tier and whose comes back: the ladder is device, host, disk.

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

namespace fermata {

// Demotion is lazy: KV leaves the device when somebody who is to run lacks the room, and then in this order:
//
//   1. of PAUSED ones, least recently paused first;
//   2. of PREEMPTED ones behind it in the order, least urgent first;
//   3. of RUNNING ones that are strictly less urgent, least urgent, newest first: they are displaced.
//
// All that is needed is worked out before anybody is touched; if it would not suffice, nobody is. Blocks that nobody
// refers to, the prefix cache's, have gone before all that. The host takes what leaves the device; where it is full,
// what has been paused longest there goes on to the disk; where that cannot be, the device's goes to the disk at once.
//
// What is to run and is elsewhere comes back when there is room, before the step that needs it; others run meanwhile.
// A generation's KV moves as a whole.
class KvLadder {
 public:
  // How long nothing is written to the disk after a failure there, unless it is asked for by name.
  static constexpr absl::Duration kDiskRetryPeriod = absl::Seconds(1);

  // Borrows all; they must outlive this.
  KvLadder(EngineState& state, Residency& residency, LifeCycle& life_cycle, Scheduler& scheduler)
      : state_(state), residency_(residency), life_cycle_(life_cycle), scheduler_(scheduler) {}

  // Starts the moves that are due: at the end of a boundary. O(what runs, and what moves), however many rest.
  void Plan();

  // A move is over. One that was to come back and cannot ends with ERROR: its KV is lost.
  void OnDone(const KvMoveDone& done);

 private:
  // A move that is to be started. One without room yet waits for others to leave the host.
  struct Step {
    Generation* generation = nullptr;
    KvTier to = KvTier::kNone;
  };

  // What moves would leave free, beside those that are under way.
  struct Room {
    int64_t host = 0;
    int64_t disk = 0;
    RestingSet::const_iterator next_on_host;  // the next to leave it for the disk
  };

  void MakeRoom();
  void ServeRequests();

  // Looks for what frees `shortage` blocks for `wanting`, and starts it. False, and nothing has changed, if it cannot
  // be found.
  bool Free(const Generation& wanting, int64_t shortage, int64_t* freed);

  // Where the KV of `generation` can go; appends what has to leave the host before. kNone: nowhere.
  KvTier PlaceFor(const Generation& generation, Room& room, std::vector<Step>& steps);

  // Whether `running` may be displaced for `wanting`.
  bool MayDisplace(const Generation& running, const Generation& wanting) const;
  Room RoomNow();
  void Start(const std::vector<Step>& steps);

  EngineState& state_;
  Residency& residency_;
  LifeCycle& life_cycle_;
  Scheduler& scheduler_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_KV_LADDER_H_
