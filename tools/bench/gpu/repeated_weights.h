// Weights to measure with.

#ifndef FERMATA_TOOLS_BENCH_GPU_REPEATED_WEIGHTS_H_
#define FERMATA_TOOLS_BENCH_GPU_REPEATED_WEIGHTS_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/model/dummy_weights.h"
#include "engine/model/weight_source.h"

namespace fermata {

// Made-up weights, of one layer for all: made in a fraction of the time, and still each in its own memory of the
// device.
class RepeatedWeights : public WeightSource {
 public:
  bool Has(absl::string_view name) const override { return made_up_.Has(name); }
  absl::StatusOr<HostTensor> Take(absl::string_view name, const std::vector<int64_t>& shape) override {
    const absl::string_view part = name.substr(name.rfind("blk.", 0) == 0 ? name.find('.', 4) : 0);
    HostTensor& tensor = tensors_[std::string(part)];
    if (tensor.data == nullptr) {
      absl::StatusOr<HostTensor> taken = made_up_.Take(name, shape);
      if (!taken.ok()) return taken;
      tensor = *std::move(taken);
    }
    return tensor;
  }
  std::vector<std::string> NotTaken() const override { return {}; }
  const std::string& path() const override { return made_up_.path(); }

 private:
  DummyWeights made_up_{"made up", /*tied=*/false};
  std::map<std::string, HostTensor> tensors_;
};

}  // namespace fermata

#endif  // FERMATA_TOOLS_BENCH_GPU_REPEATED_WEIGHTS_H_
