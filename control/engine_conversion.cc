#include "control/engine_conversion.h"

#include "engine/serving/generation_conversion.h"

namespace fermata {
namespace {

void FillLimits(const EngineOptions& options, v1::Engine::Limits* limits) {
  limits->set_max_running(options.max_running);
  limits->set_max_queued(options.max_queued);
  limits->set_max_live(options.max_live);
  limits->set_context_token_count(options.context_tokens);
  limits->set_step_token_count(options.step_tokens);
  limits->set_block_token_count(options.block_tokens);
}

// Not for a tier that is not configured.
void AddPool(v1::KvTier::Tier tier, const KvPoolInfo& info, v1::Engine* engine) {
  if (info.block_count == 0) return;
  v1::Engine::KvPool* pool = engine->add_kv_pools();
  pool->set_tier(tier);
  pool->set_total_count(info.block_count);
  pool->set_free_count(info.free_count);
  pool->set_running_count(info.running_count);
  pool->set_preempted_count(info.preempted_count);
  pool->set_paused_count(info.paused_count);
  pool->set_cached_count(info.cached_count);
  pool->set_moving_count(info.moving_count);
}

void AddMoves(const EngineInfo& info, v1::Engine::Totals* totals) {
  for (int from = 0; from < kKvTierCount; ++from) {
    for (int to = 0; to < kKvTierCount; ++to) {
      if (info.kv_move_total[from][to] == 0) continue;
      v1::Engine::KvMoveCount* moves = totals->add_kv_moves();
      moves->set_from(ToProto(static_cast<KvTier>(from)));
      moves->set_to(ToProto(static_cast<KvTier>(to)));
      moves->set_count(info.kv_move_total[from][to]);
    }
  }
  totals->set_failed_kv_move_count(info.kv_move_failed_total);
}

void FillTotals(const EngineInfo& info, v1::Engine::Totals* totals) {
  totals->set_finished_count(info.finished_total);
  totals->set_prefilled_token_count(info.prefilled_token_total);
  totals->set_recomputed_token_count(info.recomputed_token_total);
  totals->set_output_token_count(info.output_token_total);
  totals->set_preemption_count(info.preemption_total);
  totals->set_pause_count(info.pause_total);
  AddMoves(info, totals);
}

}  // namespace

void ToProto(const EngineInfo& info, const EngineRuntime& runtime, absl::string_view model_name, v1::Engine* proto) {
  const auto count = [&](GenerationState state) { return info.count_by_state[static_cast<int>(state)]; };
  const EngineStats::Snapshot stats = runtime.stats();
  proto->set_model_name(std::string(model_name));
  proto->set_backend(runtime.backend());
  proto->set_version(kVersion);
  FillLimits(runtime.options(), proto->mutable_limits());
  AddPool(v1::KvTier::DEVICE, info.device, proto);
  AddPool(v1::KvTier::HOST, info.host, proto);
  AddPool(v1::KvTier::DISK, info.disk, proto);
  v1::Engine::StateCounts* counts = proto->mutable_state_counts();
  counts->set_queued_count(count(GenerationState::kQueued));
  counts->set_running_count(count(GenerationState::kRunning));
  counts->set_preempted_count(count(GenerationState::kPreempted));
  counts->set_paused_count(count(GenerationState::kPaused));
  counts->set_finished_count(count(GenerationState::kFinished));
  FillTotals(info, proto->mutable_totals());
  proto->set_step_count(info.step);
  if (stats.step_duration > absl::ZeroDuration()) ToProto(stats.step_duration, proto->mutable_step_duration());
  proto->set_tokens_per_second(stats.tokens_per_second);
  proto->set_revision(info.revision);
  ToProto(runtime.start_time(), proto->mutable_start_time());
  proto->set_draining(info.draining);
}

}  // namespace fermata
