#include "tools/ctl/control_flags.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace fermata::ctl {

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  const int64_t seconds = absl::ToInt64Seconds(duration);
  proto.set_seconds(seconds);
  proto.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration - absl::Seconds(seconds))));
  return proto;
}

void CallerFlags::AddTo(FlagSet& flags) {
  flags.AddString("session", "the session for which it is done; default: none, an operator's", &session_);
  flags.AddInteger("epoch", "of that session, as `session open` printed it", &epoch_);
}

void TargetFlags::AddTo(FlagSet& flags) {
  flags.AddString("tenant", "instead of ids: all of this tenant", &tenant_);
  flags.AddString("class", "instead of ids: all of this traffic class", &traffic_class_);
  flags.AddStrings("state", "instead of ids: all in this state; may be repeated", &states_);
}

absl::Status TargetFlags::FillSelector(v1::Selector& selector) const {
  selector.set_tenant(tenant_);
  selector.set_traffic_class(traffic_class_);
  for (const std::string& name : states_) {
    v1::Generation::State state;
    if (!v1::Generation::State_Parse(absl::AsciiStrToUpper(name), &state)) {
      return absl::InvalidArgumentError(absl::StrCat("--state: '", name, "' is none of the states"));
    }
    selector.add_states(state);
  }
  return absl::OkStatus();
}

void LeaseFlags::AddTo(FlagSet& flags) {
  flags.AddDuration("lease", "how long the pause lasts by itself; default: until continue", &lease_);
  flags.AddChoice("on_lease_expiry", "what happens when lease or session ends", {"continue", "abort"}, &on_expiry_);
}

}  // namespace fermata::ctl
