#include "engine/runtime/command_queue.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <variant>

namespace fermata {
namespace {

// So long a wait is as good as forever, and far from overflowing what the system counts in.
constexpr absl::Duration kLongestWait = absl::Hours(1);

template <typename... Kinds>
bool IsOneOf(const Command& command) {
  return (std::holds_alternative<Kinds>(command) || ...);
}

}  // namespace

size_t CommandQueue::BoundFor(const Command& command) const {
  if (IsOneOf<DetachCommand, DrainCommand, KvMoveDone, ParkAllCommand>(command))
    return std::numeric_limits<size_t>::max();
  if (IsOneOf<PreemptCommand, ContinueCommand, AbortCommand, SetPriorityCommand, ApplyCommand, OpenSessionCommand,
              KeepSessionAliveCommand, CloseSessionCommand>(command)) {
    return 2 * capacity_;
  }
  return capacity_;
}

bool CommandQueue::TryPush(Command command) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed_ || commands_.size() >= BoundFor(command)) return false;
    commands_.push_back(std::move(command));
  }
  not_empty_.notify_one();
  return true;
}

std::vector<Command> CommandQueue::TakeAll() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(commands_, {});
}

void CommandQueue::Wait(absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto ready = [this] { return closed_ || !commands_.empty(); };
  not_empty_.wait_for(lock, absl::ToChronoNanoseconds(std::min(timeout, kLongestWait)), ready);
}

void CommandQueue::Close(Command last) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    commands_.push_back(std::move(last));
    closed_ = true;
  }
  not_empty_.notify_one();
}

}  // namespace fermata
