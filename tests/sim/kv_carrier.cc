#include "tests/sim/kv_carrier.h"

#include <utility>

namespace fermata {
namespace {

constexpr int64_t kMostTurns = 12;

}  // namespace

void KvCarrier::Take(const Report& report) {
  for (const GenerationId& id : report.discarded_files) disk_.push_back({{.generation_id = id}, 0});
  for (const KvMove& move : report.moves) {
    ++move_count_;
    const Job job = {move, random_.OneIn(3) ? 0 : random_.Uniform(0, kMostTurns)};
    if (Uses(move, KvTier::kDisk)) {
      disk_.push_back(job);
    } else {
      memory_.push_back(job);
    }
  }
  for (const KvMoveId id : report.cancelled_moves) cancelled_.insert(id);
}

std::vector<Command> KvCarrier::Done() {
  std::vector<Command> done;
  for (auto it = memory_.begin(); it != memory_.end();) {
    if (it->turns_left-- > 0) {
      ++it;
      continue;
    }
    done.push_back(Finish(it->move));
    it = memory_.erase(it);
  }
  while (!disk_.empty() && disk_.front().turns_left-- <= 0) {
    const KvMove move = std::move(disk_.front().move);
    disk_.pop_front();
    if (move.id == kNoMove) {
      runner_.RemoveFile(move.generation_id);
    } else {
      done.push_back(Finish(move));
    }
  }
  return done;
}

KvMoveDone KvCarrier::Finish(const KvMove& move) {
  // Too late for some: those are done.
  if (cancelled_.erase(move.id) > 0 && random_.OneIn(2)) return {move.id, absl::CancelledError("not wanted any more")};
  if (move.to == KvTier::kDisk && write_fault_period_ > 0 && random_.OneIn(write_fault_period_)) {
    return {move.id, absl::ResourceExhaustedError("no space left on device")};
  }
  if (move.from == KvTier::kDisk && read_fault_period_ > 0 && random_.OneIn(read_fault_period_)) {
    return {move.id, absl::DataLossError("a checksum is wrong")};
  }
  runner_.Copy(move);
  return {move.id, absl::OkStatus()};
}

}  // namespace fermata
