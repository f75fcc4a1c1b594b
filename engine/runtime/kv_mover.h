// Copies KV between the tiers, beside the steps.

#ifndef FERMATA_ENGINE_RUNTIME_KV_MOVER_H_
#define FERMATA_ENGINE_RUNTIME_KV_MOVER_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "absl/status/status.h"
#include "engine/core/commands.h"
#include "engine/core/kv_move.h"
#include "engine/core/model_runner.h"
#include "engine/core/report.h"
#include "engine/runtime/kv_disk.h"

namespace fermata {

// Two threads: one for moves between device and host, one for the disk, so that no move in memory waits for a file.
// Each does its moves in their order; idle, both are blocked.
class KvMover {
 public:
  // `host` has as many blocks as the engine's host pool, or is null; `disk` is null without that tier. `done` is called
  // on those threads, once for each move. All are borrowed.
  KvMover(ModelRunner& runner, std::byte* host, KvDisk* disk, std::function<void(KvMoveDone)> done);

  // Stop(), if it was not called.
  ~KvMover();

  // Takes the orders of a report; what is cancelled ends soon, done or not. Never waits. Any thread.
  void Take(const Report& report);

  // Finishes what is in hand, gives up the rest, removes the files that are to be removed, and ends both threads.
  void Stop();

 private:
  // A move; or, with the id kNoMove, a file to be removed.
  struct Lane {
    std::deque<KvMove> jobs;  // guarded by mutex_
    std::thread thread;
  };

  void Loop(Lane& lane);
  absl::Status Execute(const KvMove& move);
  absl::Status CopyInMemory(const KvMove& move);
  absl::Status WriteFile(const KvMove& move);
  absl::Status ReadFile(const KvMove& move);
  absl::Status CheckWanted(const KvMove& move);
  std::byte* HostBlock(BlockId block) const { return host_ + Value(block) * block_bytes_; }

  ModelRunner& runner_;
  std::byte* const host_;
  KvDisk* const disk_;
  const std::function<void(KvMoveDone)> done_;
  const int64_t block_bytes_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<KvMoveId> cancelled_;  // guarded by mutex_, as is the next
  bool stopping_ = false;
  Lane memory_lane_;
  Lane disk_lane_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_KV_MOVER_H_
