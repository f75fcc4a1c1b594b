// Threads that share the work of one operation.

#ifndef FERMATA_KERNELS_CPU_THREAD_POOL_H_
#define FERMATA_KERNELS_CPU_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace fermata::kernels {

// Run() hands out chunks of an index range to the caller and to `threads` - 1 workers. Each has an equal part of the
// range, the same for the same range, so that what it wrote in one operation is in its own cache in the next; who is
// done takes from the others' parts. Workers spin for a moment after their last chunk, since the next operation of a
// step comes within microseconds, and then sleep: idle costs nothing.
//
// One thread at a time may call Run(); it must not call itself.
class ThreadPool {
 public:
  // `threads` includes the caller of Run(); at least 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // The processors that the calling thread, and with it the threads of a pool that it makes, are bound to, as "0-1,4":
  // those that the process was given. No thread is bound to a single one, so that others find room beside them.
  static std::string Processors();

  // Calls body(begin, end, thread) for pieces of about `chunk` indices that cover [0, count), each index once; `thread`
  // is below threads(), and no two calls at the same time have the same one. Returns when all are done. Which thread
  // gets which piece is not defined, so results must not depend on it. Up to one chunk is the caller's alone.
  void Run(int64_t count, int64_t chunk, absl::FunctionRef<void(int64_t begin, int64_t end, int thread)> body);

 private:
  struct Work {
    absl::FunctionRef<void(int64_t, int64_t, int)> body;
    int64_t chunk;
  };

  // A thread's part of the range, on a cache line of its own.
  struct alignas(64) Part {
    std::atomic<int64_t> next = 0;  // first index not handed out
    int64_t end = 0;                // written by Run() before it raises the epoch
  };

  void WorkerLoop(int thread);
  void DoChunks(const Work& work, int thread);

  // Waits for an epoch other than `seen` and returns it.
  uint64_t AwaitEpoch(uint64_t seen);

  // Written by Run() before it raises the epoch, read by workers after they have seen it.
  const Work* work_ = nullptr;
  std::vector<Part> parts_;  // one for each thread

  std::atomic<uint64_t> epoch_ = 0;    // one for each Run(), and one more to stop
  std::atomic<int> busy_workers_ = 0;  // that have not finished this epoch
  std::atomic<bool> stopping_ = false;

  std::mutex mutex_;  // guards the sleep of workers, nothing else
  std::condition_variable wake_;
  std::atomic<int> sleeping_ = 0;

  std::vector<std::thread> workers_;
};

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_THREAD_POOL_H_
