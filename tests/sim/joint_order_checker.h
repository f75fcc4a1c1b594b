// Checks the order where classes, aging, shared blocks and tiers make it a matter of more than slots and blocks.

#ifndef FERMATA_TESTS_SIM_JOINT_ORDER_CHECKER_H_
#define FERMATA_TESTS_SIM_JOINT_ORDER_CHECKER_H_

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "engine/core/engine_options.h"
#include "engine/core/report.h"
#include "tests/sim/observed_generation.h"
#include "tests/sim/violations.h"

namespace fermata {

// Who has lost its place or its blocks at a boundary, for somebody else's sake.
struct BoundaryVictims {
  std::set<GenerationKey> displaced;  // RUNNING until then
  std::set<GenerationKey> dropped;    // its KV
  std::set<GenerationKey> demoted;    // its KV is on its way from the device, and it is not PAUSED

  // `generations` as they are after the report.
  BoundaryVictims(const Report& report, const ObservedGenerations& generations);
};

// Says only what is certain from outside: with aging, that one is ahead of another only if no gain could change that.
// The rules:
//  - who gives way at a boundary is strictly less urgent than one that waits and lacks blocks, or behind one that runs
//    and lacks one, or lacks one itself;
//  - a class has no more slots or blocks than its caps allow, and the slots that are reserved for it are there;
//  - nobody gets a slot or a token that somebody ahead of it could have used, unless a cap, a reserved slot, missing
//    blocks or KV that is elsewhere explains it.
class JointOrderChecker {
 public:
  // `moving` are those whose KV is, or may be, on its way. Borrows all; they must outlive this.
  JointOrderChecker(const EngineOptions& options, const ObservedGenerations& generations,
                    const std::set<GenerationId>& moving, Violations& violations)
      : options_(options), generations_(generations), moving_(moving), violations_(violations) {}

  // After a boundary.
  void CheckBoundary(const BoundaryVictims& victims);

  // `generations` as they were before the step; see OrderChecker.
  void CheckStep(const std::map<GenerationKey, int64_t>& shares, const std::set<GenerationKey>& displaced);

 private:
  using One = ObservedGeneration;

  bool IsAhead(const One& a, const One& b) const;

  // The same where tokens are given out.
  bool IsAheadForTokens(const One& a, const One& b) const;
  int32_t ClassOf(const One& one) const { return options_.ClassIndex(one.spec.traffic_class); }
  bool LacksBlockToRun(const One& one) const;
  bool LacksBlocksToStart(const One& one) const;

  // Of one that is admitted: what it held when it was displaced may be one block more than it last told.
  bool SurelyTakesBlocks(const One& one) const;

  // Whether `victim` may give way for `wanting`.
  bool MayGiveWay(const One& victim, bool has_run, const One& wanting, const BoundaryVictims& victims) const;

  // Whether nobody, of all or of a class, runs for lack of blocks, so that `victim` may be dropped for `head`.
  bool EndsStandstill(const One& victim, const One& head) const;

  // Whether it has no block for its own next token, and may stand back for that.
  bool StandsBack(const One& one, const BoundaryVictims& victims) const;

  void CheckClasses(const std::vector<const One*>& running, const std::vector<const One*>& admitted);
  void CheckPassedOver(const One& waiting, const std::vector<const One*>& admitted, int64_t running_of_its_class);

  const EngineOptions& options_;
  const ObservedGenerations& generations_;
  const std::set<GenerationId>& moving_;
  Violations& violations_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_JOINT_ORDER_CHECKER_H_
