#include "control/event_conversion.h"

#include <variant>

#include "engine/serving/generation_conversion.h"

namespace fermata {
namespace {

void Fill(const WatchedStateChange& change, v1::Event* proto) {
  v1::Event::StateChange* to = proto->mutable_state_change();
  to->set_from(ToProto(change.from));
  to->set_to(ToProto(change.to));
  const absl::string_view cause = Name(change.cause);
  to->set_cause(std::string(cause.data(), cause.size()));
}

void Fill(const Progress& progress, v1::Event* proto) {
  v1::Event::Progress* to = proto->mutable_progress();
  to->set_prefilled_token_count(progress.prefilled_token_count);
  to->set_output_token_count(progress.output_token_count);
  to->set_cached_token_count(progress.cached_token_count);
  to->set_recomputed_token_count(progress.recomputed_token_count);
  ToProto(progress.kv_blocks, to->mutable_kv_blocks());
}

void Fill(const PriorityChanged& change, v1::Event* proto) {
  proto->mutable_priority_change()->set_priority(change.priority);
}

void Fill(const KvMoved& moved, v1::Event* proto) {
  v1::Event::KvMove* to = proto->mutable_kv_move();
  to->set_from(ToProto(moved.from));
  to->set_to(ToProto(moved.to));
  to->set_block_count(moved.block_count);
  ToProto(moved.kv_blocks, to->mutable_kv_blocks());
  to->set_error_message(moved.error);
}

}  // namespace

bool ToProto(const WatchedBatch& batch, const WatchFilter& filter, v1::EventBatch* proto) {
  proto->set_revision(batch.revision);
  proto->set_step(batch.step);
  if (batch.step_duration > absl::ZeroDuration()) ToProto(batch.step_duration, proto->mutable_step_duration());
  for (const WatchedEvent& event : batch.events) {
    if (!filter.Matches(event.identity->tenant, event.identity->traffic_class)) continue;
    v1::Event* to = proto->add_events();
    to->set_generation_id(event.identity->generation_id);
    to->set_tenant(event.identity->tenant);
    std::visit([to](const auto& typed) { Fill(typed, to); }, event.event);
  }
  return !proto->events().empty();
}

}  // namespace fermata
