#include "kernels/cpu/thread_pool.h"

#include <sched.h>

#include <algorithm>

namespace fermata::kernels {
namespace {

// About 50 microseconds: longer than the gap between two operations of a step, far shorter than anything that is felt.
constexpr int kSpins = 2000;

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

std::string ThreadPool::Processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // Fails where there are more processors than the set has room for.
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return "unknown";
  std::string list;
  for (int first = 0; first < CPU_SETSIZE; ++first) {
    if (!CPU_ISSET(first, &set)) continue;
    int last = first;
    while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set)) ++last;
    if (!list.empty()) list += ',';
    list += std::to_string(first);
    if (last > first) list += '-' + std::to_string(last);
    first = last;
  }
  return list;
}

ThreadPool::ThreadPool(int threads) : parts_(threads) {
  for (int thread = 1; thread < threads; ++thread) {
    workers_.emplace_back([this, thread] { WorkerLoop(thread); });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    epoch_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(int64_t count, int64_t chunk, absl::FunctionRef<void(int64_t, int64_t, int)> body) {
  if (count <= chunk || workers_.empty()) {
    if (count > 0) body(0, count, 0);
    return;
  }
  const Work work = {body, chunk};
  work_ = &work;
  // In whole chunks, so that the same rows meet in the same chunk too.
  const int64_t chunks = (count + chunk - 1) / chunk;
  const int64_t size = static_cast<int64_t>(parts_.size());
  for (int64_t i = 0; i < size; ++i) {
    parts_[i].next.store(i * chunks / size * chunk, std::memory_order_relaxed);
    parts_[i].end = std::min(count, (i + 1) * chunks / size * chunk);
  }
  busy_workers_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  // Sequentially consistent, as is the sleeper's own order (first it counts itself, then it looks at the epoch): so
  // either it sees the new epoch or we see the sleeper.
  epoch_.fetch_add(1);
  if (sleeping_.load() > 0) {
    { const std::lock_guard<std::mutex> lock(mutex_); }
    wake_.notify_all();
  }
  DoChunks(work, 0);
  int spins = 0;
  while (busy_workers_.load(std::memory_order_acquire) > 0) {
    Relax();
    // A worker may have lost its core: let it have this one.
    if (++spins > kSpins) std::this_thread::yield();
  }
}

void ThreadPool::DoChunks(const Work& work, int thread) {
  const int size = static_cast<int>(parts_.size());
  for (int i = 0; i < size; ++i) {
    Part& part = parts_[(thread + i) % size];
    // Looked at first: a part that is done is not written to.
    while (part.next.load(std::memory_order_relaxed) < part.end) {
      const int64_t begin = part.next.fetch_add(work.chunk, std::memory_order_relaxed);
      if (begin >= part.end) break;
      work.body(begin, std::min(begin + work.chunk, part.end), thread);
    }
  }
}

uint64_t ThreadPool::AwaitEpoch(uint64_t seen) {
  for (int spin = 0; spin < kSpins; ++spin) {
    const uint64_t epoch = epoch_.load(std::memory_order_acquire);
    if (epoch != seen) return epoch;
    Relax();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  sleeping_.fetch_add(1);
  wake_.wait(lock, [&] { return epoch_.load() != seen; });
  sleeping_.fetch_sub(1);
  return epoch_.load();
}

void ThreadPool::WorkerLoop(int thread) {
  uint64_t seen = 0;
  while (true) {
    seen = AwaitEpoch(seen);
    if (stopping_.load()) return;
    DoChunks(*work_, thread);
    busy_workers_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace fermata::kernels
