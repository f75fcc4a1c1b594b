#include "engine/runtime/kv_mover.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "glog/logging.h"

namespace fermata {
namespace {

// After so many blocks it is asked whether the rest is still wanted.
constexpr size_t kBlocksAtOnce = 64;

}  // namespace

KvMover::KvMover(ModelRunner& runner, std::byte* host, KvDisk* disk, std::function<void(KvMoveDone)> done)
    : runner_(runner), host_(host), disk_(disk), done_(std::move(done)), block_bytes_(runner.kv_block_bytes()) {
  memory_lane_.thread = std::thread([this] { Loop(memory_lane_); });
  disk_lane_.thread = std::thread([this] { Loop(disk_lane_); });
}

KvMover::~KvMover() { Stop(); }

void KvMover::Take(const Report& report) {
  if (report.moves.empty() && report.cancelled_moves.empty() && report.discarded_files.empty()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const GenerationId& id : report.discarded_files) disk_lane_.jobs.push_back({.generation_id = id});
    for (const KvMove& move : report.moves) {
      const bool with_disk = move.from == KvTier::kDisk || move.to == KvTier::kDisk;
      (with_disk ? disk_lane_ : memory_lane_).jobs.push_back(move);
    }
    cancelled_.insert(report.cancelled_moves.begin(), report.cancelled_moves.end());
  }
  changed_.notify_all();
}

void KvMover::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (Lane* lane : {&memory_lane_, &disk_lane_}) {
    if (lane->thread.joinable()) lane->thread.join();
  }
}

void KvMover::Loop(Lane& lane) {
  while (true) {
    KvMove move;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !lane.jobs.empty(); });
      if (lane.jobs.empty()) return;
      move = std::move(lane.jobs.front());
      lane.jobs.pop_front();
    }
    if (move.id == kNoMove) {
      disk_->Remove(move.generation_id);
      continue;
    }
    absl::Status status = Execute(move);
    if (!status.ok() && !absl::IsCancelled(status)) {
      LOG(WARNING) << "the KV of generation \"" << move.generation_id.value() << "\" cannot go from " << Name(move.from)
                   << " to " << Name(move.to) << ": " << status;
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      cancelled_.erase(move.id);
    }
    done_({move.id, std::move(status)});
  }
}

absl::Status KvMover::CheckWanted(const KvMove& move) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (stopping_) return absl::CancelledError("the server is ending");
  return cancelled_.count(move.id) == 0 ? absl::OkStatus() : absl::CancelledError("it is not wanted any more");
}

absl::Status KvMover::Execute(const KvMove& move) {
  absl::Status status = CheckWanted(move);
  if (!status.ok()) return status;
  if (move.to == KvTier::kDisk) return WriteFile(move);
  return move.from == KvTier::kDisk ? ReadFile(move) : CopyInMemory(move);
}

absl::Status KvMover::CopyInMemory(const KvMove& move) {
  const bool out = move.from == KvTier::kDevice;
  std::vector<KvCopy> copies;
  for (size_t i = 0; i < move.source.size(); ++i) {
    const BlockId device = out ? move.source[i] : move.target[i];
    copies.push_back({device, HostBlock(out ? move.target[i] : move.source[i])});
  }
  const absl::Span<const KvCopy> all(copies);
  for (size_t done = 0; done < all.size(); done += kBlocksAtOnce) {
    absl::Status status = CheckWanted(move);
    if (!status.ok()) return status;
    const absl::Span<const KvCopy> some = all.subspan(done, kBlocksAtOnce);
    status = out ? runner_.CopyKvToHost(some) : runner_.CopyKvFromHost(some);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status KvMover::WriteFile(const KvMove& move) {
  return disk_->Write(*move.parked, move.block_count, [&](int64_t first, absl::Span<std::byte> bytes) {
    absl::Status status = CheckWanted(move);
    if (!status.ok()) return status;
    const int64_t count = static_cast<int64_t>(bytes.size()) / block_bytes_;
    std::vector<KvCopy> copies;
    const int64_t on_device = static_cast<int64_t>(move.device_source.size());
    for (int64_t i = first; i < first + count; ++i) {
      std::byte* const to = bytes.data() + (i - first) * block_bytes_;
      if (i < on_device) {
        copies.push_back({move.device_source[i], to});
      } else if (move.from == KvTier::kHost) {
        std::memcpy(to, HostBlock(move.source[i - on_device]), block_bytes_);
      } else {
        copies.push_back({move.source[i], to});
      }
    }
    return copies.empty() ? absl::OkStatus() : runner_.CopyKvToHost(copies);
  });
}

absl::Status KvMover::ReadFile(const KvMove& move) {
  return disk_->Read(move.generation_id, move.first_block, move.block_count,
                     [&](int64_t first, absl::Span<const std::byte> bytes) {
                       absl::Status status = CheckWanted(move);
                       if (!status.ok()) return status;
                       const int64_t count = static_cast<int64_t>(bytes.size()) / block_bytes_;
                       std::vector<KvCopy> copies;
                       for (int64_t i = 0; i < count; ++i) {
                         const BlockId block = move.target[first + i];
                         const std::byte* const from = bytes.data() + i * block_bytes_;
                         if (move.to == KvTier::kHost) {
                           std::memcpy(HostBlock(block), from, block_bytes_);
                         } else {
                           copies.push_back({block, const_cast<std::byte*>(from)});
                         }
                       }
                       return copies.empty() ? absl::OkStatus() : runner_.CopyKvFromHost(copies);
                     });
}

}  // namespace fermata
