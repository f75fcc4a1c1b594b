// Goal: Ctrl-C ends a wait and calls back once, and is an ordinary signal again afterwards.
// Method: signals raised in this process.

#include "tools/ctl/interrupt.h"

#include <signal.h>

#include <atomic>

#include "gtest/gtest.h"

namespace fermata::ctl {
namespace {

TEST(InterruptTest, ASignalEndsTheWaitAndCallsBackOnce) {
  std::atomic<int> calls = 0;
  {
    Interrupt interrupt([&] { ++calls; });
    EXPECT_FALSE(interrupt.WaitFor(absl::Milliseconds(1)));
    raise(SIGINT);
    EXPECT_TRUE(interrupt.WaitFor(absl::Seconds(30)));
    raise(SIGTERM);
    EXPECT_TRUE(interrupt.happened());
  }
  EXPECT_EQ(calls, 1);
}

TEST(InterruptTest, WithoutASignalNothingIsCalledAndTheOldActionIsBack) {
  std::atomic<int> calls = 0;
  {
    Interrupt interrupt([&] { ++calls; });
  }
  EXPECT_EQ(calls, 0);
  struct sigaction now;
  ASSERT_EQ(sigaction(SIGINT, nullptr, &now), 0);
  EXPECT_EQ(now.sa_handler, SIG_DFL);
}

}  // namespace
}  // namespace fermata::ctl
