#include "control/event_conversion.h"

#include <utility>
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

void Merge(const Progress& progress, v1::Event::Progress* to) {
  to->set_prefilled_token_count(to->prefilled_token_count() + progress.prefilled_token_count);
  to->set_output_token_count(to->output_token_count() + progress.output_token_count);
  to->set_cached_token_count(to->cached_token_count() + progress.cached_token_count);
  to->set_recomputed_token_count(to->recomputed_token_count() + progress.recomputed_token_count);
  ToProto(progress.kv_blocks, to->mutable_kv_blocks());
}

}  // namespace

BatchMerger::Added BatchMerger::Add(const WatchedBatch& batch) {
  Added added = Added::kNothing;
  for (const WatchedEvent& event : batch.events) {
    const WatchedIdentity& identity = *event.identity;
    if (!filter_.Matches(identity.tenant, identity.traffic_class)) continue;
    const auto* progress = std::get_if<Progress>(&event.event);
    if (progress == nullptr) {
      added = Added::kChange;
      progress_.clear();
    } else {
      if (added == Added::kNothing) added = Added::kProgress;
      const auto [known, is_new] = progress_.try_emplace(event.identity.get(), message_.events_size());
      if (!is_new) {
        Merge(*progress, message_.mutable_events(known->second)->mutable_progress());
        continue;
      }
    }
    v1::Event* to = message_.add_events();
    to->set_generation_id(identity.generation_id);
    to->set_tenant(identity.tenant);
    std::visit([to](const auto& typed) { Fill(typed, to); }, event.event);
  }
  if (added == Added::kNothing) return added;
  message_.set_revision(batch.revision);
  message_.set_step(batch.step);
  step_duration_ += batch.step_duration;
  return added;
}

void BatchMerger::Take(v1::EventBatch* proto) {
  if (step_duration_ > absl::ZeroDuration()) ToProto(step_duration_, message_.mutable_step_duration());
  *proto = std::move(message_);
  message_.Clear();
  step_duration_ = absl::ZeroDuration();
  progress_.clear();
}

}  // namespace fermata
