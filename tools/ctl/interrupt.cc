#include "tools/ctl/interrupt.h"

#include <errno.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <utility>

namespace fermata::ctl {
namespace {

constexpr char kSignal = 's';
constexpr char kEnd = 'e';

std::atomic<int> signal_pipe{-1};

void OnSignal(int) {
  const int saved = errno;
  [[maybe_unused]] const ssize_t written = write(signal_pipe.load(), &kSignal, 1);
  errno = saved;
}

}  // namespace

Interrupt::Interrupt(std::function<void()> then) {
  if (pipe(pipe_) != 0) std::abort();
  signal_pipe = pipe_[1];
  thread_ = std::thread([this, then = std::move(then)] { Listen(then); });
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &old_int_);
  sigaction(SIGTERM, &action, &old_term_);
}

Interrupt::~Interrupt() {
  sigaction(SIGINT, &old_int_, nullptr);
  sigaction(SIGTERM, &old_term_, nullptr);
  [[maybe_unused]] const ssize_t written = write(pipe_[1], &kEnd, 1);
  thread_.join();
  signal_pipe = -1;
  close(pipe_[0]);
  close(pipe_[1]);
}

void Interrupt::Listen(const std::function<void()>& then) {
  char what = kEnd;
  while (read(pipe_[0], &what, 1) < 0 && errno == EINTR) {
  }
  if (what != kSignal) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    happened_ = true;
  }
  changed_.notify_all();
  then();
}

bool Interrupt::happened() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return happened_;
}

bool Interrupt::WaitFor(absl::Duration duration) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, absl::ToChronoMilliseconds(duration), [this] { return happened_; });
}

}  // namespace fermata::ctl
