// Checks who runs, against the rules of the order: worked out anew from what can be seen, not from the engine's plan.

#ifndef FERMATA_TESTS_SIM_ORDER_CHECKER_H_
#define FERMATA_TESTS_SIM_ORDER_CHECKER_H_

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "engine/core/engine_options.h"
#include "tests/sim/observed_generation.h"
#include "tests/sim/violations.h"

namespace fermata {

// One step: made before it, asked once. The rules:
//  - slots, blocks and tokens are not exceeded, and tokens are left only if nobody can use them;
//  - displaced are exactly as many as lack slots, the least urgent and newest, each for a strictly more urgent one;
//  - one that runs and finds no block for its next token stands still, and keeps its slot;
//  - nobody gets a slot, a block or a token that somebody ahead of it in the order could have used. Ahead is
//    (priority, arrival); for tokens, among equal priorities, decodes come first.
class OrderChecker {
 public:
  // `generations` as they were before the step; `shares` are the tokens that each computes in it, `displaced` those
  // that it moved from RUNNING to PREEMPTED. Borrows all; they must outlive this.
  OrderChecker(const EngineOptions& options, const ObservedGenerations& generations,
               const std::map<GenerationKey, int64_t>& shares, const std::set<GenerationKey>& displaced,
               Violations& violations);

  void Check();

 private:
  struct Entry {
    const ObservedGeneration* generation;
    Place place;
    int64_t share;           // tokens that it got
    int64_t missing_blocks;  // before the step; 0: it has its blocks, or needs none
  };

  // Sorts all live ones into the lists below.
  void Classify();

  void CheckBudgets();
  void CheckDisplaced();
  void CheckShares();
  void CheckWaiting();

  // One that waits and lacks nothing but perhaps a slot. `used_slots` of those it might have had went to others
  // that wait ahead of it.
  void CheckPassedOver(const Entry& waiting, int64_t* used_slots);

  // True if `a` comes before `b` where tokens are given out.
  static bool IsAheadForTokens(const Entry& a, const Entry& b);

  const EngineOptions& options_;
  const ObservedGenerations& generations_;
  const std::map<GenerationKey, int64_t>& shares_;
  const std::set<GenerationKey>& displaced_;
  Violations& violations_;

  // Each in order.
  std::vector<Entry> kept_;      // were RUNNING and stay so
  std::vector<Entry> admitted_;  // were waiting and run
  std::vector<Entry> waiting_;   // were waiting and still do
  std::vector<Entry> victims_;
  int64_t free_blocks_ = 0;  // after the step's admissions
  int64_t tokens_left_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_ORDER_CHECKER_H_
