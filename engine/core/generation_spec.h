// What to run: the engine's form of the GenerationSpec message, already validated and tokenized by the edge.

#ifndef FERMATA_ENGINE_CORE_GENERATION_SPEC_H_
#define FERMATA_ENGINE_CORE_GENERATION_SPEC_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/ids.h"
#include "engine/core/sampling_params.h"

namespace fermata {

// What happens when the last reader of a generation leaves.
enum class OnDisconnect { kAbort, kContinue, kPause };

struct GenerationSpec {
  std::vector<TokenId> prompt;  // at least one token
  SamplingParams sampling;
  int32_t priority = 0;  // lower runs sooner
  std::string tenant;
  std::string traffic_class;
  std::vector<std::pair<std::string, std::string>> labels;  // sorted by key; given back, never interpreted
  absl::Duration timeout = absl::InfiniteDuration();        // from Enqueue, pauses included
  OnDisconnect on_disconnect = OnDisconnect::kContinue;
  bool hold_on_stop = false;  // PAUSED instead of FINISHED on STOP or LENGTH
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_GENERATION_SPEC_H_
