// Bugs planted between the engine and whoever watches it, to show that the simulation finds them.

#ifndef FERMATA_TESTS_SIM_BUG_PLANTER_H_
#define FERMATA_TESTS_SIM_BUG_PLANTER_H_

#include <optional>
#include <set>
#include <vector>

#include "engine/core/model_runner.h"
#include "engine/core/report.h"

namespace fermata {

enum class Bug {
  kNone,
  kSwapBlock,        // a decode reads and writes a block of another generation
  kSkipPosition,     // the first of several tokens is not computed
  kRepeatToken,      // a token is reported twice
  kOffsetGap,        // an offset is left out
  kTokenAfterPause,  // a paused generation gets a token in a later step
  kDropFinish,       // a finish is not reported
  kRepeatFinish,     // a finish is reported twice
  kWrongStep,        // a step is reported with the number of the one before
  kSkipRevision,     // a revision is left out
  kWrongAck,         // an acknowledgement counts one token too many
  kDropReply,        // a command is not answered
  kLoseText,         // the last byte of a text is lost
  kWrongDisplaced,   // another generation is said to be displaced
};

// Plants one bug, once, at the first occasion.
class BugPlanter {
 public:
  explicit BugPlanter(Bug bug) : bug_(bug) {}

  // Changes what the runner is given. The slices are good until the next call.
  void OnBatch(std::vector<BatchSlice>& slices);

  // Changes what the watchers see.
  void OnReport(Report& report);

  bool planted() const { return planted_; }

 private:
  void OnToken(Report& report, size_t index);
  void OnStateChange(Report& report, size_t index);
  void OnReplies(Report& report);

  const Bug bug_;
  bool planted_ = false;
  std::set<GenerationKey> dropped_;     // whose KV was
  std::vector<BlockId> blocks_;         // of the slice that was changed
  std::optional<StateChanged> paused_;  // the last one that was paused while it ran
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_BUG_PLANTER_H_
