// The flags that make a GenerationSpec: shared by all commands that start a generation.

#ifndef FERMATA_TOOLS_CTL_SPEC_FLAGS_H_
#define FERMATA_TOOLS_CTL_SPEC_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/fermata/v1/generation.pb.h"
#include "tools/ctl/flag_set.h"

namespace fermata::ctl {

class SpecFlags {
 public:
  void AddTo(FlagSet& flags);

  // The spec, with a prompt of `words` joined by spaces. What no flag sets is left to the server's defaults, and ranges
  // are left to its judgement. INVALID_ARGUMENT if there is no prompt, or a label is not KEY=VALUE.
  absl::StatusOr<v1::GenerationSpec> ToSpec(const std::vector<std::string>& words) const;

 private:
  void SetPrompt(const std::string& text, v1::Prompt& prompt) const;
  void SetSampling(v1::SamplingParams& sampling) const;

  bool chat_ = false;
  std::string system_;
  std::optional<int32_t> max_tokens_;
  std::optional<float> temperature_;
  std::optional<int32_t> top_k_;
  std::optional<float> top_p_;
  std::optional<float> min_p_;
  std::optional<int64_t> seed_;
  std::vector<std::string> stop_;
  bool ignore_eos_ = false;
  bool hold_on_stop_ = false;
  std::optional<int32_t> priority_;
  std::string tenant_;
  std::string traffic_class_;
  std::vector<std::string> labels_;
  std::optional<absl::Duration> timeout_;
  std::string on_disconnect_;
};

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_SPEC_FLAGS_H_
