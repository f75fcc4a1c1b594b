// Goal: the pool of blocks, the timers and the table of generations do what their headers promise. Method: each alone.

#include <set>
#include <vector>

#include "engine/core/block_pool.h"
#include "engine/core/generation_table.h"
#include "engine/core/timer_queue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fermata {
namespace {

using ::testing::ElementsAre;

TEST(BlockPoolTest, DealsEveryBlockOnceAndTakesItBack) {
  BlockPool pool(5);
  EXPECT_EQ(pool.free_count(), 5);
  const std::vector<BlockId> first = pool.Allocate(2);
  const std::vector<BlockId> rest = pool.Allocate(3);
  EXPECT_EQ(pool.free_count(), 0);
  std::set<BlockId> all(first.begin(), first.end());
  all.insert(rest.begin(), rest.end());
  EXPECT_THAT(all, ElementsAre(BlockId{0}, BlockId{1}, BlockId{2}, BlockId{3}, BlockId{4}));
  EXPECT_FALSE(pool.IsFree(first[0]));
  pool.Release(first);
  EXPECT_TRUE(pool.IsFree(first[0]));
  EXPECT_EQ(pool.free_count(), 2);
  EXPECT_TRUE(pool.Allocate(0).empty());
}

TEST(BlockPoolTest, SameCallsGiveTheSameBlocks) {
  BlockPool a(8);
  BlockPool b(8);
  for (BlockPool* pool : {&a, &b}) {
    const std::vector<BlockId> held = pool->Allocate(5);
    pool->Release({held[3], held[1]});
  }
  EXPECT_EQ(a.Allocate(4), b.Allocate(4));
}

TEST(BlockPoolDeathTest, ABlockFreedTwiceEndsTheProcess) {
  BlockPool pool(2);
  const std::vector<BlockId> blocks = pool.Allocate(1);
  pool.Release(blocks);
  EXPECT_DEATH(pool.Release(blocks), "check failed");
  EXPECT_DEATH(pool.Release({BlockId{2}}), "check failed");
  EXPECT_DEATH(pool.Allocate(3), "check failed");
}

TEST(TimerQueueTest, NeverDueBeforeItsTime) {
  TimerQueue timers;
  const absl::Time t = absl::FromUnixSeconds(10);
  timers.Set({t, GenerationKey{1}, TimerKind::kTimeout});
  EXPECT_EQ(timers.next(), t);
  EXPECT_FALSE(timers.PopDue(t - absl::Nanoseconds(1)).has_value());
  EXPECT_TRUE(timers.PopDue(t).has_value());
  EXPECT_FALSE(timers.PopDue(t).has_value());
  EXPECT_EQ(timers.next(), absl::InfiniteFuture());
}

TEST(TimerQueueTest, DueInOrderOfTimeThenArrival) {
  TimerQueue timers;
  const absl::Time t = absl::FromUnixSeconds(10);
  timers.Set({t, GenerationKey{2}, TimerKind::kTimeout});
  timers.Set({t, GenerationKey{1}, TimerKind::kDisconnectLease});
  timers.Set({t - absl::Seconds(1), GenerationKey{3}, TimerKind::kTimeout});
  std::vector<GenerationKey> due;
  while (const auto timer = timers.PopDue(t)) due.push_back(timer->key);
  EXPECT_THAT(due, ElementsAre(GenerationKey{3}, GenerationKey{1}, GenerationKey{2}));
}

TEST(TimerQueueTest, CancelledAndInfiniteOnesTakeNoRoom) {
  TimerQueue timers;
  const Timer timer = {absl::FromUnixSeconds(10), GenerationKey{1}, TimerKind::kTimeout};
  timers.Set(timer);
  timers.Set({absl::InfiniteFuture(), GenerationKey{2}, TimerKind::kTimeout});
  EXPECT_EQ(timers.size(), 1);
  timers.Cancel(timer);
  timers.Cancel(timer);
  EXPECT_EQ(timers.size(), 0);
}

TEST(GenerationTableTest, FindsByIdAndByKeyInOrderOfArrival) {
  GenerationTable table(/*max_finished=*/10, absl::Minutes(1));
  const GenerationId b = *GenerationId::Parse("b");
  const GenerationId a = *GenerationId::Parse("a");
  Generation& first = table.Insert(b);
  Generation& second = table.Insert(a);
  EXPECT_LT(first.key, second.key);
  EXPECT_EQ(table.Find(b), &first);
  EXPECT_EQ(table.Find(second.key), &second);
  EXPECT_EQ(table.Find(*GenerationId::Parse("c")), nullptr);
  EXPECT_EQ(table.Find(GenerationKey{7}), nullptr);
  EXPECT_EQ(table.all().begin()->second.get(), &first);
}

}  // namespace
}  // namespace fermata
