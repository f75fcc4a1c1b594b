// Goal: every index is done once, by one thread at a time, and Run() returns when all are done.
// Method: many short runs, so that workers are met spinning, falling asleep and sleeping.

#include "kernels/cpu/thread_pool.h"

#include <atomic>
#include <chrono>
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
