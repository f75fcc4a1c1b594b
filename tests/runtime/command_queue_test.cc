// Goal: the queue is bounded, never makes a producer wait, keeps room for what steers a flooded engine, and wakes its
// consumer. Method: a tiny queue filled to each of its bounds; one test with threads.

#include "engine/runtime/command_queue.h"

#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "gtest/gtest.h"

namespace fermata {
namespace {

constexpr size_t kCapacity = 4;

void Fill(CommandQueue& queue) {
  while (queue.TryPush(EnqueueCommand())) {
  }
}

TEST(CommandQueueTest, CommandsComeOutInTheirOrder) {
  CommandQueue queue(kCapacity);
  EXPECT_TRUE(queue.TryPush(DetachCommand{GenerationKey{1}}));
  EXPECT_TRUE(queue.TryPush(EnqueueCommand()));
  EXPECT_TRUE(queue.TryPush(DetachCommand{GenerationKey{2}}));
  const std::vector<Command> taken = queue.TakeAll();
  ASSERT_EQ(taken.size(), 3u);
  EXPECT_EQ(std::get<DetachCommand>(taken[0]).key, GenerationKey{1});
  EXPECT_TRUE(std::holds_alternative<EnqueueCommand>(taken[1]));
  EXPECT_EQ(std::get<DetachCommand>(taken[2]).key, GenerationKey{2});
  EXPECT_TRUE(queue.TakeAll().empty());
}

TEST(CommandQueueTest, FullQueueRefusesNewWorkAndReads) {
  CommandQueue queue(kCapacity);
  Fill(queue);
  EXPECT_FALSE(queue.TryPush(GetEngineCommand()));
  EXPECT_FALSE(queue.TryPush(AttachCommand()));
  EXPECT_EQ(queue.TakeAll().size(), kCapacity);
  EXPECT_TRUE(queue.TryPush(GetEngineCommand()));
}

TEST(CommandQueueTest, VerbsHaveRoomOfTheirOwnWhenTheQueueIsFull) {
  CommandQueue queue(kCapacity);
  Fill(queue);
  EXPECT_TRUE(queue.TryPush(AbortCommand()));
  EXPECT_TRUE(queue.TryPush(PreemptCommand()));
  EXPECT_TRUE(queue.TryPush(ContinueCommand()));
  EXPECT_TRUE(queue.TryPush(SetPriorityCommand()));
  EXPECT_FALSE(queue.TryPush(AbortCommand())) << "that room is bounded too";
}

TEST(CommandQueueTest, WhatMustNotBeLostIsAlwaysTaken) {
  CommandQueue queue(kCapacity);
  Fill(queue);
  for (size_t i = 0; i < 3 * kCapacity; ++i) EXPECT_TRUE(queue.TryPush(DetachCommand()));
  EXPECT_TRUE(queue.TryPush(DrainCommand()));
}

TEST(CommandQueueTest, FullQueueTakesItsLastCommand) {
  CommandQueue queue(kCapacity);
  Fill(queue);
  queue.Close(AbortAllCommand());
  const std::vector<Command> taken = queue.TakeAll();
  ASSERT_EQ(taken.size(), kCapacity + 1);
  EXPECT_TRUE(std::holds_alternative<AbortAllCommand>(taken.back()));
}

TEST(CommandQueueTest, ClosedQueueTakesNothingButStillGivesWhatItHas) {
  CommandQueue queue(kCapacity);
  queue.TryPush(DrainCommand());
  queue.Close(AbortAllCommand());
  EXPECT_FALSE(queue.TryPush(DetachCommand()));
  queue.Wait(absl::InfiniteDuration());  // returns at once
  EXPECT_EQ(queue.TakeAll().size(), 2u);
}

TEST(CommandQueueTest, WaitEndsByItselfWhenATimerIsDue) {
  CommandQueue queue(kCapacity);
  queue.Wait(absl::Milliseconds(1));
  queue.Wait(-absl::Seconds(1));
  queue.Wait(-absl::InfiniteDuration());
  EXPECT_TRUE(queue.TakeAll().empty());
}

TEST(CommandQueueTest, ConsumerGetsEverythingThatManyProducersPush) {
  constexpr int kProducers = 4;
  constexpr int kEach = 500;
  CommandQueue queue(kCapacity);
  std::vector<std::thread> producers;
  for (int i = 0; i < kProducers; ++i) {
    producers.emplace_back([&queue, i] {
      for (int n = 0; n < kEach; ++n) queue.TryPush(DetachCommand{GenerationKey{i * kEach + n}});
    });
  }
  std::vector<int64_t> next(kProducers, 0);
  int taken = 0;
  while (taken < kProducers * kEach) {
    queue.Wait(absl::InfiniteDuration());
    for (const Command& command : queue.TakeAll()) {
      const int64_t key = Value(std::get<DetachCommand>(command).key);
      EXPECT_EQ(key % kEach, next[key / kEach]++) << "each producer's commands stay in order";
      ++taken;
    }
  }
  for (std::thread& producer : producers) producer.join();
}

}  // namespace
}  // namespace fermata
