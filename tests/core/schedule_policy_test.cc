// Goal: Decide() gives slots, blocks and tokens out as its header says. Method: the ordering scenarios that other
// engines' suites test, as plain values; then random views against the rules themselves.

#include "engine/core/schedule_policy.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fermata {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A newcomer: its whole prompt is to be computed, and it needs blocks.
Candidate Newcomer(int priority, int arrival, int tokens = 10, int blocks = 1) {
  return {.order = {priority, GenerationKey{arrival}},
          .pending_token_count = tokens,
          .missing_block_count = blocks,
          .added_block_count = blocks};
}

// One that has its KV and decodes.
Candidate Decoding(int priority, int arrival) {
  return {.order = {priority, GenerationKey{arrival}}, .decoding = true, .pending_token_count = 1};
}

// One whose prompt is partly computed.
Candidate Prefilling(int priority, int arrival, int tokens) {
  return {.order = {priority, GenerationKey{arrival}}, .pending_token_count = tokens};
}

struct Case {
  std::vector<Candidate> running;
  std::vector<Candidate> waiting;  // in any order
  Budget budget = {.slot_count = 4, .token_count = 1000, .free_block_count = 1000};
};

// A plan by arrival numbers instead of indices.
struct Outcome {
  std::vector<int64_t> displaced;
  std::vector<int64_t> admitted;
  std::vector<std::pair<int64_t, int32_t>> tokens;  // in order
};

Outcome DecideOn(Case c) {
  const auto by_order = [](const Candidate& a, const Candidate& b) { return a.order < b.order; };
  std::sort(c.running.begin(), c.running.end(), by_order);
  std::sort(c.waiting.begin(), c.waiting.end(), by_order);
  const Plan plan = Decide({c.running, c.waiting}, c.budget);
  Outcome outcome;
  for (const int32_t index : plan.displaced) outcome.displaced.push_back(Value(c.running[index].order.arrival));
  for (const Share& share : plan.shares) {
    const int64_t arrival = Value((share.waiting ? c.waiting : c.running)[share.index].order.arrival);
    if (share.waiting) outcome.admitted.push_back(arrival);
    outcome.tokens.emplace_back(arrival, share.token_count);
  }
  return outcome;
}

TEST(DecideTest, StartsByPriorityThenArrival) {
  EXPECT_THAT(DecideOn({.waiting = {Newcomer(2, 1), Newcomer(0, 2), Newcomer(1, 3)}}).admitted, ElementsAre(2, 3, 1));
  EXPECT_THAT(DecideOn({.waiting = {Newcomer(1, 3), Newcomer(1, 1), Newcomer(1, 2)}}).admitted, ElementsAre(1, 2, 3));
  EXPECT_THAT(DecideOn({.waiting = {Newcomer(2, 1), Newcomer(1, 3), Newcomer(1, 2), Newcomer(0, 4)}}).admitted,
              ElementsAre(4, 2, 3, 1));
}

TEST(DecideTest, OnlyAsManyAsThereAreSlots) {
  const std::vector<Candidate> waiting = {Newcomer(3, 1), Newcomer(1, 2), Newcomer(2, 3), Newcomer(0, 4)};
  EXPECT_THAT(DecideOn({.waiting = waiting, .budget = {1, 1000, 1000}}).admitted, ElementsAre(4));
  EXPECT_THAT(DecideOn({.waiting = waiting, .budget = {2, 1000, 1000}}).admitted, ElementsAre(4, 2));
}

TEST(DecideTest, NobodyIsDisplacedWhileThereIsRoom) {
  const Outcome outcome = DecideOn(
      {.running = {Decoding(5, 1), Decoding(5, 2)}, .waiting = {Newcomer(0, 3, 30)}, .budget = {3, 200, 1000}});
  EXPECT_THAT(outcome.displaced, IsEmpty());
  EXPECT_THAT(outcome.tokens, ElementsAre(std::pair(3, 30), std::pair(1, 1), std::pair(2, 1)));
}

TEST(DecideTest, EqualPriorityNeverDisplaces) {
  const Outcome outcome =
      DecideOn({.running = {Decoding(2, 3)}, .waiting = {Newcomer(2, 1)}, .budget = {1, 1000, 1000}});
  EXPECT_THAT(outcome.displaced, IsEmpty());
  EXPECT_THAT(outcome.admitted, IsEmpty());
}

TEST(DecideTest, TheLeastUrgentNewestIsDisplacedAndNobodyElse) {
  const Outcome outcome = DecideOn(
      {.running = {Decoding(5, 1), Decoding(9, 2), Decoding(9, 3), Decoding(1, 4)}, .waiting = {Newcomer(0, 5)}});
  EXPECT_THAT(outcome.displaced, ElementsAre(3));
  EXPECT_THAT(outcome.admitted, ElementsAre(5));
}

TEST(DecideTest, EachNewcomerNeedsAVictimLessUrgentThanItself) {
  // The second newcomer is more urgent than the victim of the first, but not than the one that is left.
  const Outcome outcome = DecideOn({.running = {Decoding(2, 1), Decoding(9, 2)},
                                    .waiting = {Newcomer(0, 3), Newcomer(5, 4)},
                                    .budget = {2, 1000, 1000}});
  EXPECT_THAT(outcome.displaced, ElementsAre(2));
  EXPECT_THAT(outcome.admitted, ElementsAre(3));
}

TEST(DecideTest, DisplacementNeverLeavesRunningOnesAlone) {
  Case c = {.running = {Decoding(9, 1)}, .waiting = {Newcomer(0, 2)}, .budget = {1, 1000, 1000, Displacement::kNever}};
  EXPECT_THAT(DecideOn(c).admitted, IsEmpty());
  EXPECT_THAT(DecideOn(c).displaced, IsEmpty());
}

TEST(DecideTest, ADisplacedOneComesBackAtItsOwnPlace) {
  const Outcome outcome = DecideOn({.running = {Decoding(7, 9)},
                                    .waiting = {Decoding(5, 1), Newcomer(5, 2), Newcomer(3, 3)},
                                    .budget = {2, 1000, 1000}});
  EXPECT_THAT(outcome.admitted, ElementsAre(3, 1));
  EXPECT_THAT(outcome.displaced, ElementsAre(9));
}

TEST(DecideTest, NobodyIsDisplacedForOneThatLacksBlocks) {
  const Outcome outcome =
      DecideOn({.running = {Decoding(9, 1)}, .waiting = {Newcomer(0, 2, 10, 8)}, .budget = {1, 1000, 7}});
  EXPECT_THAT(outcome.displaced, IsEmpty());
  EXPECT_THAT(outcome.admitted, IsEmpty());
}

TEST(DecideTest, NobodyOvertakesOneThatWaitsForBlocksToNewBlocks) {
  const Outcome outcome =
      DecideOn({.waiting = {Newcomer(0, 1, 10, 8), Newcomer(0, 2, 10, 1), Decoding(0, 3)}, .budget = {4, 1000, 7}});
  EXPECT_THAT(outcome.admitted, ElementsAre(3));  // it has its blocks
}

TEST(DecideTest, BlocksAreCountedOverAllAdmitted) {
  const Outcome outcome = DecideOn(
      {.waiting = {Newcomer(0, 1, 10, 3), Newcomer(0, 2, 10, 3), Newcomer(0, 3, 10, 3)}, .budget = {4, 1000, 8}});
  EXPECT_THAT(outcome.admitted, ElementsAre(1, 2));
}

TEST(DecideTest, LongPromptsAreCutAndShortOnesDoNotJumpTheQueue) {
  const Outcome outcome =
      DecideOn({.waiting = {Newcomer(0, 1, 800), Newcomer(0, 2, 800), Newcomer(0, 3, 10), Newcomer(0, 4, 10)},
                .budget = {3, 1024, 1000}});
  EXPECT_THAT(outcome.tokens, ElementsAre(std::pair(1, 800), std::pair(2, 224)));
}

TEST(DecideTest, DecodesComeBeforePrefillsOfTheSamePriority) {
  const Outcome outcome =
      DecideOn({.running = {Prefilling(0, 1, 100), Decoding(0, 2), Decoding(0, 3)}, .budget = {4, 10, 1000}});
  EXPECT_THAT(outcome.tokens, ElementsAre(std::pair(2, 1), std::pair(3, 1), std::pair(1, 8)));
}

TEST(DecideTest, AMoreUrgentPrefillComesBeforeALessUrgentDecode) {
  const Outcome outcome = DecideOn({.running = {Prefilling(0, 1, 100), Decoding(1, 2)}, .budget = {4, 10, 1000}});
  EXPECT_THAT(outcome.tokens, ElementsAre(std::pair(1, 10)));
  EXPECT_THAT(outcome.displaced, IsEmpty());
}

TEST(DecideTest, NobodyIsAdmittedOrDisplacedWithoutATokenLeft) {
  // The budget ends with the running prefill of the same priority, before the newcomer.
  const Outcome outcome = DecideOn(
      {.running = {Prefilling(0, 1, 100), Decoding(9, 2)}, .waiting = {Newcomer(0, 3)}, .budget = {2, 50, 1000}});
  EXPECT_THAT(outcome.tokens, ElementsAre(std::pair(1, 50)));
  EXPECT_THAT(outcome.displaced, IsEmpty());
}

TEST(DecideTest, OnlyThoseWhoGetATokenFindAVictim) {
  const Outcome outcome = DecideOn({.running = {Decoding(8, 1), Decoding(9, 2)},
                                    .waiting = {Newcomer(0, 3, 40), Newcomer(0, 4, 40)},
                                    .budget = {2, 40, 1000}});
  EXPECT_THAT(outcome.tokens, ElementsAre(std::pair(3, 40)));
  EXPECT_THAT(outcome.displaced, ElementsAre(2));
}

TEST(DecideTest, OneThatRunsAndLacksABlockKeepsItsSlotAndGetsNoToken) {
  Candidate stalled = Decoding(0, 1);
  stalled.missing_block_count = 1;
  Case c = {.running = {stalled, Decoding(0, 2)}, .waiting = {Decoding(0, 3)}, .budget = {2, 1000, 0}};
  EXPECT_THAT(DecideOn(c).tokens, ElementsAre(std::pair(2, 1)));
  EXPECT_THAT(DecideOn(c).displaced, IsEmpty());
}

TEST(DecideTest, NothingToDoIsAnEmptyPlan) {
  const Outcome outcome = DecideOn({});
  EXPECT_THAT(outcome.tokens, IsEmpty());
  EXPECT_THAT(outcome.displaced, IsEmpty());
}

// Candidates of a class.
Candidate In(int32_t class_index, Candidate candidate) {
  candidate.class_index = class_index;
  return candidate;
}

TEST(ClassTest, AClassAtItsCapDoesNotBlockAnother) {
  const std::vector<ClassBudget> classes = {{.max_running = 1}, {}};
  const Outcome outcome =
      DecideOn({.running = {In(0, Decoding(0, 1))},
                .waiting = {In(0, Newcomer(0, 2)), In(0, Newcomer(0, 3)), In(1, Newcomer(5, 4))},
                .budget = {.slot_count = 4, .token_count = 1000, .free_block_count = 1000, .classes = classes}});
  EXPECT_THAT(outcome.admitted, ElementsAre(4));
  EXPECT_THAT(outcome.displaced, IsEmpty());
}

TEST(ClassTest, AtItsCapAMoreUrgentOneTakesASlotOfItsOwnClass) {
  const std::vector<ClassBudget> classes = {{.max_running = 2}, {}};
  const Outcome outcome =
      DecideOn({.running = {In(0, Decoding(2, 1)), In(0, Decoding(3, 2)), In(1, Decoding(9, 3))},
                .waiting = {In(0, Newcomer(1, 4))},
                .budget = {.slot_count = 8, .token_count = 1000, .free_block_count = 1000, .classes = classes}});
  EXPECT_THAT(outcome.admitted, ElementsAre(4));
  EXPECT_THAT(outcome.displaced, ElementsAre(2));
}

TEST(ClassTest, ReservedSlotsStayFreeForTheirClass) {
  const std::vector<ClassBudget> classes = {{.reserved = 2}, {}};
  const Budget budget = {.slot_count = 3, .token_count = 1000, .free_block_count = 1000, .classes = classes};
  EXPECT_THAT(DecideOn({.waiting = {In(1, Newcomer(0, 1)), In(1, Newcomer(0, 2))}, .budget = budget}).admitted,
              ElementsAre(1));
  EXPECT_THAT(DecideOn({.running = {In(1, Decoding(0, 1))},
                        .waiting = {In(1, Newcomer(0, 2)), In(0, Newcomer(9, 3)), In(0, Newcomer(9, 4))},
                        .budget = budget})
                  .admitted,
              ElementsAre(3, 4));
}

TEST(ClassTest, OneOnAReservedSlotIsDisplacedByItsOwnClassAlone) {
  const std::vector<ClassBudget> classes = {{.reserved = 1}, {}};
  const Budget budget = {.slot_count = 2, .token_count = 1000, .free_block_count = 1000, .classes = classes};
  const std::vector<Candidate> running = {In(0, Decoding(9, 1)), In(1, Decoding(5, 2))};
  EXPECT_THAT(DecideOn({.running = running, .waiting = {In(1, Newcomer(0, 3))}, .budget = budget}).displaced,
              ElementsAre(2));
  EXPECT_THAT(DecideOn({.running = running, .waiting = {In(0, Newcomer(0, 3))}, .budget = budget}).displaced,
              ElementsAre(1));
}

TEST(ClassTest, BlocksOfACappedClassAreKeptBackFromThatClassAlone) {
  const std::vector<ClassBudget> classes = {{.block_count = 5}, {}};
  const Outcome outcome =
      DecideOn({.waiting = {In(0, Newcomer(0, 1, 10, 6)), In(0, Newcomer(0, 2, 10, 1)), In(1, Newcomer(0, 3, 10, 50))},
                .budget = {.slot_count = 4, .token_count = 1000, .free_block_count = 60, .classes = classes}});
  EXPECT_THAT(outcome.admitted, ElementsAre(3));
}

TEST(AgingTest, ChangesTheOrderOfAdmissionAndDisplacesNobody) {
  Candidate aged = Newcomer(1, 9);  // by its own priority 5
  aged.aged_levels = 4;
  EXPECT_THAT(DecideOn({.waiting = {Newcomer(2, 1), aged}, .budget = {1, 1000, 1000}}).admitted, ElementsAre(9));
  EXPECT_THAT(DecideOn({.running = {Decoding(4, 1)}, .waiting = {aged}, .budget = {1, 1000, 1000}}).displaced,
              IsEmpty());
  EXPECT_THAT(DecideOn({.running = {Decoding(6, 1)}, .waiting = {aged}, .budget = {1, 1000, 1000}}).displaced,
              ElementsAre(1));
}

// Views at random, with classes: caps and reservations hold after every plan.
TEST(ClassTest, EveryPlanKeepsCapsAndReservations) {
  std::mt19937 random(7);
  const auto pick = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  for (int round = 0; round < 20000; ++round) {
    const std::vector<ClassBudget> classes = {
        {.max_running = pick(1, 4), .block_count = pick(0, 9), .reserved = pick(0, 1)}, {.reserved = pick(0, 2)}, {}};
    Case c = {.budget = {.slot_count = pick(3, 8),
                         .token_count = pick(1, 40),
                         .free_block_count = pick(0, 20),
                         .displacement = pick(0, 3) == 0 ? Displacement::kNever : Displacement::kRunning,
                         .classes = classes}};
    int arrival = 0;
    std::vector<int64_t> running(3);
    const auto used = [&] {
      int64_t slots = 0;
      for (int k = 0; k < 3; ++k) slots += std::max(running[k], classes[k].reserved);
      return slots;
    };
    for (int n = pick(0, 8); n > 0; --n) {
      const int k = pick(0, 2);
      ++running[k];
      if (running[k] > classes[k].max_running || used() > c.budget.slot_count) {
        --running[k];
        continue;
      }
      c.running.push_back(In(k, Decoding(pick(0, 3), arrival++)));
    }
    for (int n = pick(0, 8); n > 0; --n) {
      const int k = pick(0, 2);
      c.waiting.push_back(In(k, pick(0, 1) == 0 ? Newcomer(pick(0, 3), arrival++, pick(1, 20), pick(1, 6))
                                                : Decoding(pick(0, 3), arrival++)));
    }
    const auto by_order = [](const Candidate& a, const Candidate& b) { return a.order < b.order; };
    std::sort(c.running.begin(), c.running.end(), by_order);
    std::sort(c.waiting.begin(), c.waiting.end(), by_order);
    const Plan plan = Decide({c.running, c.waiting}, c.budget);
    std::vector<int64_t> blocks(3);
    for (const int32_t index : plan.displaced) --running[c.running[index].class_index];
    for (const Share& share : plan.shares) {
      if (!share.waiting) continue;
      ++running[c.waiting[share.index].class_index];
      blocks[c.waiting[share.index].class_index] += c.waiting[share.index].missing_block_count;
    }
    ASSERT_LE(used(), c.budget.slot_count) << "round " << round;
    for (int k = 0; k < 3; ++k) {
      ASSERT_LE(running[k], classes[k].max_running) << "round " << round;
      ASSERT_LE(blocks[k], classes[k].block_count) << "round " << round;
    }
    if (c.budget.displacement == Displacement::kNever) {
      ASSERT_TRUE(plan.displaced.empty());
    }
  }
}

TEST(WaitingLimitTest, CountsFreeSlotsAndThoseLessUrgent) {
  const std::vector<Candidate> running = {Decoding(1, 1), Decoding(5, 2), Decoding(5, 3), Decoding(9, 4)};
  const Budget budget = {.slot_count = 6};
  EXPECT_EQ(WaitingLimit(running, budget, {0, GenerationKey{9}}), 2 + 4);
  EXPECT_EQ(WaitingLimit(running, budget, {5, GenerationKey{0}}), 2 + 1);
  EXPECT_EQ(WaitingLimit(running, {.slot_count = 4, .displacement = Displacement::kNever}, {0, GenerationKey{9}}), 0);
}

class RandomViewTest : public ::testing::Test {
 protected:
  std::vector<Candidate> RandomCandidates(int count, bool waiting) {
    std::vector<Candidate> candidates;
    for (int i = 0; i < count; ++i) {
      const int kind = random_() % 3;
      const int priority = random_() % 4;
      const int arrival = next_arrival_ += 1 + random_() % 3;
      const int tokens = 1 + random_() % 20;
      if (kind == 0 && waiting) candidates.push_back(Newcomer(priority, arrival, tokens, 1 + random_() % 4));
      if (kind == 0 && !waiting) candidates.push_back(Prefilling(priority, arrival, tokens));
      if (kind == 1) candidates.push_back(Decoding(priority, arrival));
      if (kind == 2) candidates.push_back(Prefilling(priority, arrival, tokens));
    }
    std::shuffle(candidates.begin(), candidates.end(), random_);
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.order < b.order; });
    return candidates;
  }

  std::mt19937 random_{11};
  int next_arrival_ = 0;
};

// Each displaced one needs a displacer of its own that is strictly more urgent: pair the most urgent with the most
// urgent.
void ExpectStrictlyLessUrgent(const std::vector<Candidate>& displaced, const std::vector<Candidate>& admitted) {
  ASSERT_LE(displaced.size(), admitted.size());
  const size_t first = admitted.size() - displaced.size();  // the more urgent ones took the free slots
  for (size_t i = 0; i < displaced.size(); ++i) {
    EXPECT_LT(admitted[first + i].order.priority, displaced[i].order.priority);
  }
}

TEST_F(RandomViewTest, EveryPlanKeepsTheRules) {
  for (int round = 0; round < 20000; ++round) {
    Budget budget = {.slot_count = static_cast<int64_t>(1 + random_() % 6),
                     .token_count = static_cast<int64_t>(1 + random_() % 40),
                     .free_block_count = static_cast<int64_t>(random_() % 10),
                     .displacement = random_() % 4 == 0 ? Displacement::kNever : Displacement::kRunning};
    const std::vector<Candidate> running = RandomCandidates(random_() % (budget.slot_count + 1), false);
    const std::vector<Candidate> waiting = RandomCandidates(random_() % 8, true);
    SCOPED_TRACE(testing::Message() << "round " << round);
    const Plan plan = Decide({running, waiting}, budget);

    std::vector<Candidate> admitted;
    int64_t tokens = 0;
    int64_t blocks = 0;
    for (const Share& share : plan.shares) {
      const Candidate& candidate = (share.waiting ? waiting : running)[share.index];
      EXPECT_GE(share.token_count, 1);
      EXPECT_LE(share.token_count, candidate.pending_token_count);
      tokens += share.token_count;
      if (!share.waiting) continue;
      admitted.push_back(candidate);
      blocks += candidate.missing_block_count;
    }
    std::sort(admitted.begin(), admitted.end(),
              [](const Candidate& a, const Candidate& b) { return a.order < b.order; });
    EXPECT_LE(tokens, budget.token_count);
    EXPECT_LE(blocks, budget.free_block_count);

    // As few victims as needed, from the end of the order, each less urgent than who takes its place.
    const int64_t wanted = static_cast<int64_t>(running.size() + admitted.size());
    EXPECT_EQ(static_cast<int64_t>(plan.displaced.size()), std::max<int64_t>(0, wanted - budget.slot_count));
    std::vector<Candidate> displaced(running.end() - plan.displaced.size(), running.end());
    for (size_t i = 0; i < plan.displaced.size(); ++i) EXPECT_EQ(plan.displaced[i], int32_t(running.size() - 1 - i));
    ExpectStrictlyLessUrgent(displaced, admitted);
    EXPECT_TRUE(displaced.empty() || budget.displacement == Displacement::kRunning);

    // Nothing that has work is left without any while the budget lasts.
    if (!running.empty() || (!waiting.empty() && waiting[0].missing_block_count <= budget.free_block_count)) {
      EXPECT_GE(tokens, 1);
    }
  }
}

}  // namespace
}  // namespace fermata
