// Goal: every index is done once, by one thread at a time, and Run() returns when all are done.
// Method: many short runs, so that workers are met spinning, falling asleep and sleeping.

#include "kernels/cpu/thread_pool.h"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace fermata::kernels {
namespace {

TEST(ThreadPoolTest, EachIndexIsDoneOnce) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (const int64_t count : {0, 1, 2, 63, 64, 1000}) {
      for (const int64_t chunk : {1, 7, 64}) {
        std::vector<int> done(count, 0);
        std::vector<std::atomic<int>> inside(threads);
        pool.Run(count, chunk, [&](int64_t begin, int64_t end, int thread) {
          EXPECT_EQ(inside[thread].fetch_add(1), 0);
          for (int64_t i = begin; i < end; ++i) ++done[i];
          inside[thread].fetch_sub(1);
        });
        EXPECT_EQ(done, std::vector<int>(count, 1)) << threads << " threads, chunks of " << chunk;
      }
    }
  }
}

TEST(ThreadPoolTest, SaysWhatItsThreadsAreBoundTo) {
  cpu_set_t given;
  ASSERT_EQ(sched_getaffinity(0, sizeof(given), &given), 0);
  int first = 0;
  while (!CPU_ISSET(first, &given)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(ThreadPool::Processors(), std::to_string(first));
  ASSERT_EQ(sched_setaffinity(0, sizeof(given), &given), 0);
  const bool goes_on = CPU_ISSET(first + 1, &given);
  EXPECT_EQ(ThreadPool::Processors().rfind(std::to_string(first) + (goes_on ? "-" : ""), 0), 0u);
}

TEST(ThreadPoolTest, WorkersThatFellAsleepAreWoken) {
  ThreadPool pool(3);
  for (int round = 0; round < 200; ++round) {
    // Some rounds come at once, some when workers have given up spinning.
    if (round % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int> sum = 0;
    pool.Run(16, 1, [&](int64_t begin, int64_t, int) { sum += static_cast<int>(begin); });
    ASSERT_EQ(sum, 120);
  }
}

}  // namespace
}  // namespace fermata::kernels
