// When things happen, and the report of what happened.

#ifndef FERMATA_ENGINE_CORE_JOURNAL_H_
#define FERMATA_ENGINE_CORE_JOURNAL_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/commands.h"
#include "engine/core/generation.h"
#include "engine/core/report.h"

namespace fermata {

// The engine's time, step and revision, and the report in the making. Every event and every reply goes through here, in
// order.
class Journal {
 public:
  explicit Journal(int64_t first_revision) : revision_(first_revision) {}

  absl::Time now() const { return now_; }
  int64_t step() const { return step_; }  // last completed one

  // Of the last report that had events, the one in the making included.
  int64_t revision() const { return report_.events.empty() ? revision_ : revision_ + 1; }

  // REQUIRES: `now` is not earlier than now().
  void SetNow(absl::Time now);

  // The step being run is complete: what is recorded from now on belongs to it.
  void CompleteStep() { ++step_; }

  // Makes room for the events of a step of `count` generations.
  void Reserve(size_t count);

  // Records an event of `generation` and sets its revision.
  template <typename E>
  void Record(Generation& generation, E event) {
    event.key = generation.key;
    report_.events.emplace_back(std::move(event));
    generation.revision = revision();
  }

  // Records a change of state. For those that Report promises it for, a copy of `generation` as it is now goes along.
  void RecordStateChange(Generation& generation, GenerationState from, Cause cause);

  // Its revision is filled in by Take(): it is not known before.
  void Record(Reply reply);

  // Orders about KV.
  void StartMove(KvMove move) { report_.moves.push_back(std::move(move)); }
  void CancelMove(KvMoveId id) { report_.cancelled_moves.push_back(id); }
  void DiscardFile(const GenerationId& id) { report_.discarded_files.push_back(id); }

  std::vector<GenerationKey>* forgotten() { return &report_.forgotten; }

  // Closes the report in the making and begins another one.
  Report Take();

 private:
  absl::Time now_ = absl::InfinitePast();
  int64_t step_ = 0;
  int64_t revision_;  // of the last closed report that had events
  Report report_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_JOURNAL_H_
