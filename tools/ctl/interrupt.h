// Ctrl-C as an ordinary end of a command that goes on until then.

#ifndef FERMATA_TOOLS_CTL_INTERRUPT_H_
#define FERMATA_TOOLS_CTL_INTERRUPT_H_

#include <signal.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/time/time.h"

namespace fermata::ctl {

// While it lives, SIGINT and SIGTERM do not end the process. At most one at a time.
class Interrupt {
 public:
  // Calls `then`, once, on a thread of its own, when the signal comes.
  explicit Interrupt(std::function<void()> then);
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Whether the signal came.
  bool happened();

  // Waits for so long, or until the signal comes; the same answer.
  bool WaitFor(absl::Duration duration);

 private:
  void Listen(const std::function<void()>& then);

  int pipe_[2];
  struct sigaction old_int_;
  struct sigaction old_term_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool happened_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_INTERRUPT_H_
