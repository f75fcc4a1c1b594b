// Commands on their way from gRPC's threads to the engine's.

#ifndef FERMATA_ENGINE_RUNTIME_COMMAND_QUEUE_H_
#define FERMATA_ENGINE_RUNTIME_COMMAND_QUEUE_H_

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/commands.h"

namespace fermata {

// Bounded; many producers, one consumer. Pushing never waits.
//
// Three kinds of command have three bounds. Ordinary ones (Enqueue, reads) may fill `capacity`. Verbs over what exists
// (Preempt, Continue, Abort, SetPriority, Apply) and life signs of sessions may fill as much again, so that an engine
// flooded with work can still be steered. What must not be lost (Detach, Drain, KvMoveDone, ParkAll) is always taken:
// there is at most one for each reader that was counted and for each move of KV.
class CommandQueue {
 public:
  explicit CommandQueue(size_t capacity) : capacity_(capacity) {}

  // False if the queue is full for this kind of command, or closed; `command` is then dropped.
  bool TryPush(Command command);

  // Everything pushed so far, in order. Does not wait.
  std::vector<Command> TakeAll();

  // Waits until there is something to take, Close() was called, or `timeout` has passed.
  void Wait(absl::Duration timeout);

  // Takes in `last`, and nothing after it. Wakes whoever waits. Called once.
  void Close(Command last);

  size_t capacity() const { return capacity_; }

 private:
  // How many commands there may be before one of this kind is refused.
  size_t BoundFor(const Command& command) const;

  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable not_empty_;
  std::vector<Command> commands_;  // guarded by mutex_, as is the next
  bool closed_ = false;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_COMMAND_QUEUE_H_
