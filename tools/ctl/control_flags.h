// Flags that the verbs share: whom they are about, for whom they are done, and how long a pause lasts.

#ifndef FERMATA_TOOLS_CTL_CONTROL_FLAGS_H_
#define FERMATA_TOOLS_CTL_CONTROL_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "proto/fermata/v1/control_service.pb.h"
#include "tools/ctl/flag_set.h"

namespace fermata::ctl {

google::protobuf::Duration ToProto(absl::Duration duration);

// A session, and its epoch.
class CallerFlags {
 public:
  void AddTo(FlagSet& flags);

  // What is not given stays as it is in `request`.
  template <typename Request>
  void Fill(Request& request) const {
    if (!session_.empty()) request.set_session_id(session_);
    if (epoch_.has_value()) request.set_epoch(*epoch_);
  }

 private:
  std::string session_;
  std::optional<int64_t> epoch_;
};

// Ids as operands, or a selector by flags.
class TargetFlags {
 public:
  void AddTo(FlagSet& flags);

  // INVALID_ARGUMENT unless exactly one of both is there.
  template <typename Request>
  absl::Status Fill(const std::vector<std::string>& ids, Request& request) const {
    const bool selects = !tenant_.empty() || !traffic_class_.empty() || !states_.empty();
    if (selects == !ids.empty()) {
      return absl::InvalidArgumentError("either ids are needed, or --tenant, --class or --state to choose them by");
    }
    for (const std::string& id : ids) request.add_generation_ids(id);
    return selects ? FillSelector(*request.mutable_selector()) : absl::OkStatus();
  }

 private:
  absl::Status FillSelector(v1::Selector& selector) const;

  std::string tenant_;
  std::string traffic_class_;
  std::vector<std::string> states_;
};

// How long a pause lasts by itself, and what then.
class LeaseFlags {
 public:
  void AddTo(FlagSet& flags);

  template <typename Request>
  void Fill(Request& request) const {
    if (lease_.has_value()) *request.mutable_lease() = ToProto(*lease_);
    if (on_expiry_ == "abort") request.set_on_lease_expiry(v1::OnLeaseExpiry::ABORT);
    if (on_expiry_ == "continue") request.set_on_lease_expiry(v1::OnLeaseExpiry::CONTINUE);
  }

 private:
  std::optional<absl::Duration> lease_;
  std::string on_expiry_;
};

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_CONTROL_FLAGS_H_
