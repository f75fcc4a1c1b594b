#include "tools/ctl/spec_flags.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace fermata::ctl {
namespace {

void SetDuration(absl::Duration from, google::protobuf::Duration& to) {
  absl::Duration rest;
  to.set_seconds(absl::IDivDuration(from, absl::Seconds(1), &rest));
  to.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
}

}  // namespace

void SpecFlags::AddTo(FlagSet& flags) {
  flags.AddSwitch("chat", "the prompt is a message to an assistant, not text to go on with", &chat_);
  flags.AddString("system", "what the assistant is told first; implies --chat", &system_);
  flags.AddInteger("max_tokens", "most output tokens", &max_tokens_);
  flags.AddNumber("temperature", "0 is greedy: always the most likely token", &temperature_);
  flags.AddInteger("top_k", "choose among the N most likely tokens; 0: all", &top_k_);
  flags.AddNumber("top_p", "choose among the most likely tokens of this share", &top_p_);
  flags.AddNumber("min_p", "drop tokens less likely than this share of the best", &min_p_);
  flags.AddInteger("seed", "the same seed gives the same output", &seed_);
  flags.AddStrings("stop", "stop at this text; may be repeated", &stop_);
  flags.AddSwitch("ignore_eos", "go on past the model's own end", &ignore_eos_);
  flags.AddSwitch("hold_on_stop", "at its end, pause it instead: continue may append to it", &hold_on_stop_);
  flags.AddInteger("priority", "lower runs sooner; default 0", &priority_);
  flags.AddString("tenant", "whom the work is for", &tenant_);
  flags.AddString("traffic_class", "kind of traffic", &traffic_class_);
  flags.AddStrings("label", "KEY=VALUE, given back with the generation; may be repeated", &labels_);
  flags.AddDuration("timeout", "end it after so long, pauses included", &timeout_);
  flags.AddChoice("on_disconnect", "when its last reader leaves", {"abort", "continue", "pause"}, &on_disconnect_);
}

void SpecFlags::SetPrompt(const std::string& text, v1::Prompt& prompt) const {
  if (!chat_ && system_.empty()) {
    prompt.set_text(text);
    return;
  }
  auto add = [&prompt](absl::string_view role, const std::string& content) {
    v1::ChatMessage& message = *prompt.mutable_chat()->add_messages();
    message.set_role(std::string(role));
    message.set_content(content);
  };
  if (!system_.empty()) add("system", system_);
  add("user", text);
}

void SpecFlags::SetSampling(v1::SamplingParams& sampling) const {
  if (max_tokens_) sampling.set_max_tokens(*max_tokens_);
  if (temperature_) sampling.set_temperature(*temperature_);
  if (top_k_) sampling.set_top_k(*top_k_);
  if (top_p_) sampling.set_top_p(*top_p_);
  if (min_p_) sampling.set_min_p(*min_p_);
  if (seed_) sampling.set_seed(*seed_);
  for (const std::string& stop : stop_) sampling.add_stop(stop);
  sampling.set_ignore_eos(ignore_eos_);
}

absl::StatusOr<v1::GenerationSpec> SpecFlags::ToSpec(const std::vector<std::string>& words) const {
  if (words.empty()) return absl::InvalidArgumentError("a prompt is needed");
  v1::GenerationSpec spec;
  SetPrompt(absl::StrJoin(words, " "), *spec.mutable_prompt());
  SetSampling(*spec.mutable_sampling());
  if (priority_) spec.set_priority(*priority_);
  spec.set_tenant(tenant_);
  spec.set_hold_on_stop(hold_on_stop_);
  spec.set_traffic_class(traffic_class_);
  for (const std::string& label : labels_) {
    const size_t equals = label.find('=');
    if (equals == std::string::npos)
      return absl::InvalidArgumentError(absl::StrCat("--label=", label, ": not KEY=VALUE"));
    (*spec.mutable_labels())[label.substr(0, equals)] = label.substr(equals + 1);
  }
  if (timeout_) SetDuration(*timeout_, *spec.mutable_timeout());
  if (on_disconnect_ == "abort") spec.set_on_disconnect(v1::OnDisconnect::ABORT);
  if (on_disconnect_ == "continue") spec.set_on_disconnect(v1::OnDisconnect::CONTINUE);
  if (on_disconnect_ == "pause") spec.set_on_disconnect(v1::OnDisconnect::PAUSE);
  return spec;
}

}  // namespace fermata::ctl
