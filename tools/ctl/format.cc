#include "tools/ctl/format.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"

namespace fermata::ctl {
namespace {

std::string DurationText(const google::protobuf::Duration& duration) {
  const absl::Duration time = absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
  return absl::FormatDuration(
      absl::Trunc(time, time < absl::Seconds(1) ? absl::Microseconds(10) : absl::Milliseconds(10)));
}

std::string TimeText(const google::protobuf::Timestamp& timestamp) {
  const absl::Time time = absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
}

// "PAUSED", or "FINISHED/STOP".
std::string StateText(const v1::Generation& generation) {
  const std::string& state = v1::Generation::State_Name(generation.state());
  if (generation.finish_reason() == v1::Generation::FINISH_REASON_UNSPECIFIED) return state;
  return absl::StrCat(state, "/", v1::Generation::FinishReason_Name(generation.finish_reason()));
}

std::string Times(int64_t count) { return count == 1 ? "once" : absl::StrCat(count, " times"); }

void AddLine(std::string& text, absl::string_view title, absl::string_view value) {
  if (!value.empty()) absl::StrAppendFormat(&text, "%-12s %s\n", title, value);
}

}  // namespace

std::string TableHead() {
  return absl::StrFormat("%-24s %-17s %8s %7s %7s %-13s %s\n", "GENERATION", "STATE", "PRIORITY", "PROMPT", "OUTPUT",
                         "KV", "TENANT");
}

std::string TableRow(const v1::Generation& generation) {
  const std::string kv = absl::StrCat(v1::KvTier::Tier_Name(generation.kv_tier()), " ", generation.kv_block_count());
  return absl::StrFormat("%-24s %-17s %8d %7d %7d %-13s %s\n", generation.generation_id(), StateText(generation),
                         generation.priority(), generation.usage().prompt_token_count(),
                         generation.usage().output_token_count(), kv, Printable(generation.tenant()));
}

std::string UsageText(const v1::Usage& usage) {
  std::string prompt = absl::StrCat(usage.prompt_token_count(), " prompt tokens");
  if (usage.cached_token_count() > 0) absl::StrAppend(&prompt, ", ", usage.cached_token_count(), " cached");
  if (usage.appended_token_count() > 0) absl::StrAppend(&prompt, ", ", usage.appended_token_count(), " appended");
  absl::StrAppend(&prompt, ", ", usage.prefilled_token_count(), " computed, ", usage.recomputed_token_count(),
                  " recomputed");
  std::vector<std::string> parts = {prompt, absl::StrCat(usage.output_token_count(), " output tokens")};
  if (usage.pause_count() > 0) {
    parts.push_back(
        absl::StrCat("paused ", Times(usage.pause_count()), " for ", DurationText(usage.paused_duration())));
  }
  if (usage.preemption_count() > 0) parts.push_back(absl::StrCat("displaced ", Times(usage.preemption_count())));
  return absl::StrJoin(parts, "; ");
}

std::string Details(const v1::Generation& generation) {
  std::string text;
  AddLine(text, "generation", generation.generation_id());
  AddLine(text, "state", absl::StrCat(StateText(generation), " since step ", generation.step()));
  AddLine(text, "error", Printable(generation.error_message()));
  if (generation.has_pause()) {
    std::string pause = Printable(generation.pause().reason());
    if (!generation.pause().session_id().empty()) absl::StrAppend(&pause, " session ", generation.pause().session_id());
    if (generation.pause().has_lease_expire_time()) {
      absl::StrAppend(&pause, " until ", TimeText(generation.pause().lease_expire_time()));
    }
    AddLine(text, "pause", pause);
  }
  AddLine(text, "priority", absl::StrCat(generation.priority()));
  AddLine(text, "tenant", Printable(generation.tenant()));
  AddLine(text, "class", Printable(generation.traffic_class()));
  for (const auto& [key, value] : generation.labels()) AddLine(text, "label", Printable(absl::StrCat(key, "=", value)));
  AddLine(text, "kv",
          absl::StrCat(v1::KvTier::Tier_Name(generation.kv_tier()), ", ", generation.kv_block_count(), " blocks"));
  AddLine(text, "usage", UsageText(generation.usage()));
  AddLine(text, "time",
          absl::StrCat("queued ", DurationText(generation.usage().queued_duration()), ", running ",
                       DurationText(generation.usage().running_duration()), ", paused ",
                       DurationText(generation.usage().paused_duration())));
  AddLine(text, "created", TimeText(generation.create_time()));
  if (generation.has_start_time()) AddLine(text, "started", TimeText(generation.start_time()));
  if (generation.has_finish_time()) AddLine(text, "finished", TimeText(generation.finish_time()));
  return text;
}

std::string Details(const v1::Engine& engine) {
  const v1::Engine::StateCounts& states = engine.state_counts();
  const v1::Engine::Limits& limits = engine.limits();
  const v1::Engine::Totals& totals = engine.totals();
  std::string text;
  AddLine(text, "model", absl::StrCat(Printable(engine.model_name()), " on ", engine.backend()));
  AddLine(text, "server",
          absl::StrCat("version ", engine.version(), ", since ", TimeText(engine.start_time()),
                       engine.draining() ? ", draining" : ""));
  AddLine(text, "now",
          absl::StrFormat("%d queued, %d running, %d preempted, %d paused, %d finished", states.queued_count(),
                          states.running_count(), states.preempted_count(), states.paused_count(),
                          states.finished_count()));
  for (const v1::Engine::KvPool& pool : engine.kv_pools()) {
    AddLine(text, absl::StrCat("kv ", v1::KvTier::Tier_Name(pool.tier())),
            absl::StrFormat("%d of %d blocks free; running %d, preempted %d, paused %d, cached %d", pool.free_count(),
                            pool.total_count(), pool.running_count(), pool.preempted_count(), pool.paused_count(),
                            pool.cached_count()));
  }
  AddLine(text, "speed",
          absl::StrFormat("%.1f tokens a second; a step takes %s; %d steps so far", engine.tokens_per_second(),
                          DurationText(engine.step_duration()), engine.step_count()));
  AddLine(text, "totals",
          absl::StrFormat("%d finished; tokens: %d prefilled, %d recomputed, %d output; %d displacements, %d pauses",
                          totals.finished_count(), totals.prefilled_token_count(), totals.recomputed_token_count(),
                          totals.output_token_count(), totals.preemption_count(), totals.pause_count()));
  AddLine(text, "limits",
          absl::StrFormat("%d running, %d queued, %d live; tokens: %d in a context, %d in a step, %d in a block",
                          limits.max_running(), limits.max_queued(), limits.max_live(), limits.context_token_count(),
                          limits.step_token_count(), limits.block_token_count()));
  return text;
}

std::string Printable(absl::string_view text) {
  std::string result(text);
  std::replace_if(
      result.begin(), result.end(), [](unsigned char c) { return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f; },
      '?');
  return result;
}

}  // namespace fermata::ctl
