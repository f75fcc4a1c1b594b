// Moves KV between the tiers of a simulation, as a copy thread and a disk would: late, and not always.

#ifndef FERMATA_TESTS_SIM_KV_CARRIER_H_
#define FERMATA_TESTS_SIM_KV_CARRIER_H_

#include <cstdint>
#include <deque>
#include <set>
#include <vector>

#include "engine/core/commands.h"
#include "engine/core/kv_move.h"
#include "engine/core/report.h"
#include "tests/fakes/fake_model_runner.h"
#include "tests/sim/sim_random.h"

namespace fermata {

// Each move takes some turns, and is done at its end: whoever changes its source or uses its target before is found out
// by the model. The disk has one queue, in order; it fails at times, as a full or a broken one does.
class KvCarrier {
 public:
  // Borrows both. One write in `write_fault_period` fails and one read in `read_fault_period`; 0: none.
  KvCarrier(SimRandom& random, FakeModelRunner& runner, int64_t write_fault_period, int64_t read_fault_period)
      : random_(random),
        runner_(runner),
        write_fault_period_(write_fault_period),
        read_fault_period_(read_fault_period) {}

  // Takes what a report asks for.
  void Take(const Report& report);

  // What has been done since: the commands that say so. To be asked once in each turn.
  std::vector<Command> Done();

  // From now on nothing fails.
  void EndFaults() { write_fault_period_ = read_fault_period_ = 0; }

  // Nothing is under way.
  bool idle() const { return memory_.empty() && disk_.empty(); }
  int64_t move_count() const { return move_count_; }

 private:
  struct Job {
    KvMove move;  // of no blocks and no id: a file to be removed
    int64_t turns_left = 0;
  };

  bool Uses(const KvMove& move, KvTier tier) const { return move.from == tier || move.to == tier; }
  KvMoveDone Finish(const KvMove& move);

  SimRandom& random_;
  FakeModelRunner& runner_;
  int64_t write_fault_period_;
  int64_t read_fault_period_;
  std::vector<Job> memory_;
  std::deque<Job> disk_;
  std::set<KvMoveId> cancelled_;
  int64_t move_count_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_KV_CARRIER_H_
