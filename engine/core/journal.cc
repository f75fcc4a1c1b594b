#include "engine/core/journal.h"

#include <memory>
#include <utility>
#include <variant>

#include "engine/core/check.h"

namespace fermata {
namespace {

// For each generation in a step: its token, its progress, and one more for some.
constexpr size_t kEventsPerGeneration = 3;

}  // namespace

void Journal::SetNow(absl::Time now) {
  FERMATA_CHECK(now >= now_);
  now_ = now;
}

void Journal::Reserve(size_t count) { report_.events.reserve(report_.events.size() + kEventsPerGeneration * count); }

void Journal::RecordStateChange(Generation& generation, GenerationState from, Cause cause) {
  const GenerationState to = generation.state();
  Record(generation, StateChanged{generation.key, from, to, cause, nullptr});
  const bool with_info =
      from == GenerationState::kNone || to == GenerationState::kPaused || to == GenerationState::kFinished;
  // Only now: the copy shows the revision of this very event.
  if (!with_info) return;
  std::get<StateChanged>(report_.events.back()).info =
      std::make_shared<const GenerationInfo>(generation.Describe(now_));
}

void Journal::Record(Reply reply) {
  reply.step = step_;
  report_.replies.push_back(std::move(reply));
}

Report Journal::Take() {
  revision_ = revision();
  report_.step = step_;
  report_.revision = revision_;
  for (Reply& reply : report_.replies) {
    reply.revision = revision_;
    if (EngineInfo* info = std::get_if<EngineInfo>(&reply.result)) info->revision = revision_;
  }
  return std::exchange(report_, Report());
}

}  // namespace fermata
