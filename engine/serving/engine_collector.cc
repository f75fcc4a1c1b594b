#include "engine/serving/engine_collector.h"

#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <variant>

namespace fermata {
namespace {

constexpr std::chrono::seconds kPatience(1);

// One metric, with a value for each of what its label may be.
class FamilyBuilder {
 public:
  FamilyBuilder(const std::string& name, const std::string& help, prometheus::MetricType type) {
    family_.name = name;
    family_.help = help;
    family_.type = type;
  }

  FamilyBuilder& Add(int64_t value, std::vector<std::pair<std::string, std::string>> labels = {}) {
    prometheus::ClientMetric& metric = family_.metric.emplace_back();
    for (auto& [name, text] : labels) metric.label.push_back({std::move(name), std::move(text)});
    const double number = static_cast<double>(value);
    if (family_.type == prometheus::MetricType::Counter) {
      metric.counter.value = number;
    } else {
      metric.gauge.value = number;
    }
    return *this;
  }

  prometheus::MetricFamily Take() { return std::move(family_); }

 private:
  prometheus::MetricFamily family_;
};

prometheus::MetricFamily Total(const std::string& name, const std::string& help, int64_t value) {
  return FamilyBuilder(name, help, prometheus::MetricType::Counter).Add(value).Take();
}

prometheus::MetricFamily Blocks(const EngineInfo& info) {
  FamilyBuilder family("fermata_kv_blocks", "KV blocks, by tier and use; the uses add up to the tier.",
                       prometheus::MetricType::Gauge);
  const std::pair<const char*, const KvPoolInfo*> tiers[] = {
      {"device", &info.device}, {"host", &info.host}, {"disk", &info.disk}};
  for (const auto& [tier, pool] : tiers) {
    // Of one that is not configured there is nothing to say; the cache lives on the device alone.
    if (pool->block_count == 0) continue;
    const auto add = [&, tier = tier](const char* use, int64_t count) {
      family.Add(count, {{"tier", tier}, {"use", use}});
    };
    add("running", pool->running_count);
    add("preempted", pool->preempted_count);
    add("paused", pool->paused_count);
    add("moving", pool->moving_count);
    add("free", pool->free_count);
    if (pool == &info.device) add("cached", pool->cached_count);
  }
  return family.Take();
}

prometheus::MetricFamily Moves(const EngineInfo& info) {
  FamilyBuilder family("fermata_kv_moves_total", "Moves of a generation's KV from one tier to another.",
                       prometheus::MetricType::Counter);
  const char* const tiers[kKvTierCount] = {"none", "device", "host", "disk"};
  for (int from = 0; from < kKvTierCount; ++from) {
    for (int to = 1; to < kKvTierCount; ++to) {
      if (from != to) family.Add(info.kv_move_total[from][to], {{"from", tiers[from]}, {"to", tiers[to]}});
    }
  }
  return family.Take();
}

}  // namespace

std::vector<prometheus::MetricFamily> ToMetrics(const EngineInfo& info) {
  const auto count = [&](GenerationState state) { return info.count_by_state[static_cast<int>(state)]; };
  using Type = prometheus::MetricType;
  return {
      FamilyBuilder("fermata_generations", "Generations that are not finished, by state.", Type::Gauge)
          .Add(count(GenerationState::kQueued), {{"state", "queued"}})
          .Add(count(GenerationState::kRunning), {{"state", "running"}})
          .Add(count(GenerationState::kPreempted), {{"state", "preempted"}})
          .Add(count(GenerationState::kPaused), {{"state", "paused"}})
          .Take(),
      Blocks(info),
      Moves(info),
      Total("fermata_failed_kv_moves_total", "Moves of KV that failed.", info.kv_move_failed_total),
      Total("fermata_steps_total", "Completed steps.", info.step),
      Total("fermata_prefilled_tokens_total", "Prompt and appended tokens computed.", info.prefilled_token_total),
      Total("fermata_output_tokens_total", "Tokens sampled.", info.output_token_total),
      Total("fermata_recomputed_tokens_total", "Tokens computed again.", info.recomputed_token_total),
      Total("fermata_preemptions_total", "Displacements by the scheduler.", info.preemption_total),
      Total("fermata_pauses_total", "Pauses.", info.pause_total),
  };
}

std::vector<prometheus::MetricFamily> EngineCollector::Collect() const {
  // Shared with the callback, which may come after this has given up.
  const auto answer = std::make_shared<std::promise<std::vector<prometheus::MetricFamily>>>();
  std::future<std::vector<prometheus::MetricFamily>> metrics = answer->get_future();
  const absl::Status sent = runtime_.Submit(GetEngineCommand(), [answer](const Reply* reply,
                                                                         std::shared_ptr<TokenLog>) {
    const bool ok = reply != nullptr && reply->status.ok();
    answer->set_value(ok ? ToMetrics(std::get<EngineInfo>(reply->result)) : std::vector<prometheus::MetricFamily>());
  });
  if (!sent.ok() || metrics.wait_for(kPatience) != std::future_status::ready) return {};
  return metrics.get();
}

}  // namespace fermata
