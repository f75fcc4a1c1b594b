// Who runs in the next step: a pure function of what it sees.

#ifndef FERMATA_ENGINE_CORE_SCHEDULE_POLICY_H_
#define FERMATA_ENGINE_CORE_SCHEDULE_POLICY_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "engine/core/engine_options.h"
#include "engine/core/order_key.h"

namespace fermata {

// A generation as far as the decision needs to know it.
struct Candidate {
  OrderKey order;
  bool decoding = false;            // its prompt is computed: it needs one token a step
  int32_t pending_token_count = 0;  // that it could compute now, at least 1
  int64_t missing_block_count = 0;  // of the pool: waiting, it must be given them to start; running, it stands still
  int64_t added_block_count = 0;    // that its class will hold more then: those that it shares with others too
  bool parked = false;              // its KV is on another tier: it keeps its place for blocks, and cannot start yet
  int32_t class_index = 0;          // into Budget::classes, if that has any
  int32_t aged_levels = 0;          // how much more urgent `order` is than what it may displace others by
};

// What a traffic class may have.
struct ClassBudget {
  int64_t max_running = std::numeric_limits<int64_t>::max();
  int64_t block_count = std::numeric_limits<int64_t>::max();  // that it may still be given
  int64_t reserved = 0;                                       // slots that the others leave to it
};

// Both in order. Of those of a class that wait it needs only the first WaitingLimit() with missing blocks and as many
// without: whoever comes behind them would find no slot.
struct View {
  absl::Span<const Candidate> running;
  absl::Span<const Candidate> waiting;
};

// What there is to give out in one step.
struct Budget {
  int64_t slot_count = 0;   // generations that may run at once, at least as many as run now
  int64_t token_count = 0;  // at least 1
  int64_t free_block_count = 0;
  Displacement displacement = Displacement::kRunning;
  absl::Span<const ClassBudget> classes = {};  // empty: there are none, and nobody has a cap
};

// One generation's part in the step.
struct Share {
  bool waiting = false;  // index into View::waiting (it is to be admitted), else into View::running
  int32_t index = 0;
  int32_t token_count = 0;  // at least 1
};

struct Plan {
  std::vector<int32_t> displaced;  // indices into View::running, least urgent first
  std::vector<Share> shares;       // in the order in which the budget was given out
};

// The order is (priority, arrival), over running and waiting together; that one was displaced and has its KV gives it
// no better place than its arrival.
//
// Slots go by that order: a waiting one takes a free slot or, with Displacement::kRunning, that of the least urgent,
// newest running one whose priority is strictly greater. A waiting one that lacks blocks keeps back those behind it
// that need new ones (nobody overtakes it to what it waits for), but not those that have theirs. Nobody is displaced
// for one that cannot start. A running one that lacks a block keeps its slot, and gets no token. Tokens go by that
// order too, except that among equal priorities decodes come first; a waiting one that would get none is not admitted,
// and a running one that gets none keeps its slot.
//
// A class at a cap of its own waits without keeping anything back from others: for a slot within its cap one of it
// displaces another one of it. Slots that are reserved and not used stay free for their class, and one that uses them
// is displaced by its own class alone. O(running + waiting), and O(running) for each one displaced where there are
// classes.
Plan Decide(const View& view, const Budget& budget);

// The most waiting generations that Decide() could admit, given that `head` is the most urgent of them: what a View
// need not go beyond, with missing blocks and without. O(running).
int64_t WaitingLimit(absl::Span<const Candidate> running, const Budget& budget, const OrderKey& head);

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_SCHEDULE_POLICY_H_
