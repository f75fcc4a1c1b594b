#include "tools/ctl/top_model.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/ctl/format.h"

namespace fermata::ctl {
namespace {

using State = v1::Generation;

int64_t Blocks(const v1::KvBlocks& blocks) { return blocks.device_count() + blocks.host_count() + blocks.disk_count(); }

std::string Holder(const v1::Generation& generation) {
  if (generation.state() != State::PAUSED) return "";
  const v1::Pause& pause = generation.pause();
  const std::string holder = pause.session_id().empty() ? "operator" : pause.session_id();
  return pause.reason().empty() ? holder : absl::StrCat(holder, ": ", pause.reason());
}

}  // namespace

void TopModel::Take(const v1::WatchResponse& message) {
  for (const v1::Generation& generation : message.snapshot().generations()) {
    if (generation.state() != State::FINISHED) Fill(live_[generation.generation_id()], generation);
  }
  if (!message.has_batch()) return;
  new_steps_ += message.batch().has_step_duration() ? 1 : 0;
  step_ = message.batch().step();
  for (const v1::Event& event : message.batch().events()) Take(event);
}

void TopModel::Take(const v1::Event& event) {
  const std::string& id = event.generation_id();
  if (event.has_state_change() && event.state_change().to() == State::FINISHED) {
    live_.erase(id);
    undescribed_.erase(id);
    return;
  }
  Entry& entry = live_[id];
  entry.generation.set_generation_id(id);
  entry.generation.set_tenant(event.tenant());
  if (event.has_state_change()) {
    const bool is_new = event.state_change().from() == State::STATE_UNSPECIFIED;
    entry.generation.set_state(event.state_change().to());
    if (is_new || event.state_change().to() == State::PAUSED) undescribed_[id] = true;
  } else if (event.has_progress()) {
    const int64_t tokens = event.progress().output_token_count();
    entry.new_tokens += tokens;
    new_tokens_ += tokens;
    v1::Usage* usage = entry.generation.mutable_usage();
    usage->set_output_token_count(usage->output_token_count() + tokens);
    *entry.generation.mutable_kv_blocks() = event.progress().kv_blocks();
  } else if (event.has_priority_change()) {
    entry.generation.set_priority(event.priority_change().priority());
  }
}

void TopModel::Describe(const v1::Generation& generation) {
  const auto found = live_.find(generation.generation_id());
  if (found == live_.end()) return;
  // A copy from before the pause does not say who holds it.
  const bool is_old = found->second.generation.state() == State::PAUSED && generation.state() != State::PAUSED;
  if (!is_old) undescribed_.erase(generation.generation_id());
  Fill(found->second, generation);
}

void TopModel::Fill(Entry& entry, const v1::Generation& generation) {
  // What events have counted meanwhile is newer than a copy may be.
  const int64_t tokens =
      std::max(entry.generation.usage().output_token_count(), generation.usage().output_token_count());
  const State::State state = entry.generation.state();
  entry.generation = generation;
  entry.generation.mutable_usage()->set_output_token_count(tokens);
  if (state != State::STATE_UNSPECIFIED) entry.generation.set_state(state);
}

std::string TopModel::Screen(absl::Duration elapsed, int rows) {
  const double seconds = std::max(absl::ToDoubleSeconds(elapsed), 1e-3);
  std::map<State::State, int64_t> counts;
  v1::KvBlocks held;
  std::vector<const Entry*> order;
  for (const auto& [id, entry] : live_) {
    ++counts[entry.generation.state()];
    held.set_device_count(held.device_count() + entry.generation.kv_blocks().device_count());
    held.set_host_count(held.host_count() + entry.generation.kv_blocks().host_count());
    held.set_disk_count(held.disk_count() + entry.generation.kv_blocks().disk_count());
    order.push_back(&entry);
  }
  std::stable_sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::make_pair(-a->new_tokens, -Blocks(a->generation.kv_blocks())) <
           std::make_pair(-b->new_tokens, -Blocks(b->generation.kv_blocks()));
  });
  std::string screen = absl::StrFormat(
      "step %d   %.1f steps/s   %.1f tokens/s   KV blocks: %d device, %d host, %d disk\n"
      "%d running   %d queued   %d preempted   %d paused\n\n",
      step_, new_steps_ / seconds, new_tokens_ / seconds, held.device_count(), held.host_count(), held.disk_count(),
      counts[State::RUNNING], counts[State::QUEUED], counts[State::PREEMPTED], counts[State::PAUSED]);
  absl::StrAppendFormat(&screen, "%-24s %-9s %-12s %-12s %8s %9s %8s %7s %6s %6s  %s\n", "GENERATION", "STATE",
                        "TENANT", "CLASS", "PRIORITY", "TOKENS/S", "TOKENS", "DEVICE", "HOST", "DISK", "HELD BY");
  for (size_t i = 0; i < order.size() && static_cast<int>(i) < rows; ++i) {
    const v1::Generation& generation = order[i]->generation;
    absl::StrAppendFormat(&screen, "%-24.24s %-9s %-12.12s %-12.12s %8d %9.1f %8d %7d %6d %6d  %s\n",
                          Printable(generation.generation_id()), State::State_Name(generation.state()),
                          Printable(generation.tenant()), Printable(generation.traffic_class()), generation.priority(),
                          order[i]->new_tokens / seconds, generation.usage().output_token_count(),
                          generation.kv_blocks().device_count(), generation.kv_blocks().host_count(),
                          generation.kv_blocks().disk_count(), Printable(Holder(generation)));
  }
  for (auto& [id, entry] : live_) entry.new_tokens = 0;
  new_steps_ = 0;
  new_tokens_ = 0;
  return screen;
}

}  // namespace fermata::ctl
