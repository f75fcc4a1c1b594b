#include "engine/serving/generation_conversion.h"

#include "absl/strings/str_cat.h"

namespace fermata {

v1::Generation::State ToProto(GenerationState state) {
  switch (state) {
    case GenerationState::kNone:
      return v1::Generation::STATE_UNSPECIFIED;
    case GenerationState::kQueued:
      return v1::Generation::QUEUED;
    case GenerationState::kRunning:
      return v1::Generation::RUNNING;
    case GenerationState::kPreempted:
      return v1::Generation::PREEMPTED;
    case GenerationState::kPaused:
      return v1::Generation::PAUSED;
    case GenerationState::kFinished:
      return v1::Generation::FINISHED;
  }
  return v1::Generation::STATE_UNSPECIFIED;
}

v1::Generation::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return v1::Generation::FINISH_REASON_UNSPECIFIED;
    case FinishReason::kStop:
      return v1::Generation::STOP;
    case FinishReason::kLength:
      return v1::Generation::LENGTH;
    case FinishReason::kAborted:
      return v1::Generation::ABORTED;
    case FinishReason::kDeadline:
      return v1::Generation::DEADLINE;
    case FinishReason::kError:
      return v1::Generation::ERROR;
  }
  return v1::Generation::FINISH_REASON_UNSPECIFIED;
}

v1::KvTier::Tier ToProto(KvTier tier) {
  switch (tier) {
    case KvTier::kNone:
      return v1::KvTier::NONE;
    case KvTier::kDevice:
      return v1::KvTier::DEVICE;
    case KvTier::kHost:
      return v1::KvTier::HOST;
    case KvTier::kDisk:
      return v1::KvTier::DISK;
  }
  return v1::KvTier::KV_TIER_UNSPECIFIED;
}

void ToProto(absl::Time time, google::protobuf::Timestamp* proto) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  proto->set_seconds(seconds);
  proto->set_nanos(static_cast<int32_t>((time - absl::FromUnixSeconds(seconds)) / absl::Nanoseconds(1)));
}

void ToProto(absl::Duration duration, google::protobuf::Duration* proto) {
  const int64_t seconds = absl::ToInt64Seconds(duration);
  proto->set_seconds(seconds);
  proto->set_nanos(static_cast<int32_t>((duration - absl::Seconds(seconds)) / absl::Nanoseconds(1)));
}

void ToProto(const KvBlockCounts& blocks, v1::KvBlocks* proto) {
  proto->set_device_count(blocks.device);
  proto->set_host_count(blocks.host);
  proto->set_disk_count(blocks.disk);
}

void ToProto(const Usage& usage, v1::Usage* proto) {
  proto->set_prompt_token_count(usage.prompt_token_count);
  proto->set_cached_token_count(usage.cached_token_count);
  proto->set_appended_token_count(usage.appended_token_count);
  proto->set_prefilled_token_count(usage.prefilled_token_count);
  proto->set_recomputed_token_count(usage.recomputed_token_count);
  proto->set_output_token_count(usage.output_token_count);
  proto->set_preemption_count(usage.preemption_count);
  proto->set_pause_count(usage.pause_count);
  ToProto(usage.queued_duration, proto->mutable_queued_duration());
  ToProto(usage.running_duration, proto->mutable_running_duration());
  ToProto(usage.paused_duration, proto->mutable_paused_duration());
}

// A hold by control is told before one by disconnect: it is the one that Attach does not end.
void FillPause(const PauseInfo& pause, v1::Pause* proto) {
  const absl::Time expire_time = pause.by_control ? pause.lease_expire_time : pause.disconnect_expire_time;
  const bool aborts = !pause.by_control || pause.on_lease_expiry == OnLeaseExpiry::kAbort;
  proto->set_session_id(pause.session_id);
  proto->set_reason(pause.by_control ? pause.reason : "disconnect");
  if (expire_time != absl::InfiniteFuture()) ToProto(expire_time, proto->mutable_lease_expire_time());
  if (expire_time != absl::InfiniteFuture() || !pause.session_id.empty()) {
    proto->set_on_lease_expiry(aborts ? v1::OnLeaseExpiry::ABORT : v1::OnLeaseExpiry::CONTINUE);
  }
}

void ToProto(const GenerationInfo& info, v1::Generation* proto) {
  proto->set_generation_id(info.id.value());
  proto->set_state(ToProto(info.state));
  proto->set_finish_reason(ToProto(info.finish_reason));
  proto->set_error_message(info.error_message);
  proto->set_priority(info.priority);
  proto->set_tenant(info.tenant);
  proto->set_traffic_class(info.traffic_class);
  for (const auto& [key, value] : info.labels) (*proto->mutable_labels())[key] = value;
  proto->set_kv_tier(ToProto(info.kv_tier));
  proto->set_kv_block_count(info.kv_blocks.total());
  ToProto(info.kv_blocks, proto->mutable_kv_blocks());
  ToProto(info.usage, proto->mutable_usage());
  if (info.state == GenerationState::kPaused) {
    FillPause(info.pause, proto->mutable_pause());
  }
  if (info.create_time != absl::InfinitePast()) ToProto(info.create_time, proto->mutable_create_time());
  if (info.start_time != absl::InfinitePast()) ToProto(info.start_time, proto->mutable_start_time());
  if (info.finish_time != absl::InfinitePast()) ToProto(info.finish_time, proto->mutable_finish_time());
  proto->set_step(info.step);
  proto->set_revision(info.revision);
}

absl::StatusOr<GenerationState> ToGenerationState(int state) {
  switch (state) {
    case v1::Generation::QUEUED:
      return GenerationState::kQueued;
    case v1::Generation::RUNNING:
      return GenerationState::kRunning;
    case v1::Generation::PREEMPTED:
      return GenerationState::kPreempted;
    case v1::Generation::PAUSED:
      return GenerationState::kPaused;
    case v1::Generation::FINISHED:
      return GenerationState::kFinished;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("states has ", state, "; allowed are QUEUED, RUNNING, PREEMPTED, PAUSED and FINISHED"));
  }
}

}  // namespace fermata
