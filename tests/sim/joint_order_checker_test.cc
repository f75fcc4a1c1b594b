// Goal: the checker tells a right victim from a wrong one. Method: two generations as they are seen after a boundary at
// which one has been displaced and demoted, and the other has no block for its next token.

#include "tests/sim/joint_order_checker.h"

#include "gtest/gtest.h"

namespace fermata {
namespace {

constexpr GenerationKey kOld{1};
constexpr GenerationKey kNew{2};

// True if it is wrong that `victim` has given way to the other one.
bool IsWrong(GenerationKey victim, GenerationState other_state) {
  EngineOptions options;
  options.block_tokens = 4;
  options.host_block_count = 8;
  ObservedGenerations generations;
  for (const GenerationKey key : {kOld, kNew}) {
    ObservedGeneration& one = generations[key];
    one.key = key;
    one.state = key == victim ? GenerationState::kPreempted : other_state;
    one.tier = KvTier::kDevice;
    // The victim has its block, the other one lacks it.
    one.Give({TokenId{1}, TokenId{2}, TokenId{3}, TokenId{4}, TokenId{5}});
    one.max_tokens = 8;
    one.block_count = key == victim ? 2 : 1;
  }
  BoundaryVictims victims({}, generations);
  victims.displaced.insert(victim);
  victims.demoted.insert(victim);
  Violations violations;
  JointOrderChecker(options, generations, {}, violations).CheckBoundary(victims);
  return !violations.empty();
}

TEST(JointOrderCheckerTest, AGrowingOneMayTakeVictimsBehindItInTheOrderAlone) {
  EXPECT_FALSE(IsWrong(kNew, GenerationState::kRunning));
  EXPECT_TRUE(IsWrong(kOld, GenerationState::kRunning));
}

TEST(JointOrderCheckerTest, EqualPriorityDoesNotGiveWayToOneThatWaits) {
  EXPECT_TRUE(IsWrong(kNew, GenerationState::kQueued));
  EXPECT_TRUE(IsWrong(kOld, GenerationState::kQueued));
}

}  // namespace
}  // namespace fermata
