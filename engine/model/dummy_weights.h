// Weights made up: for benchmarks of a model's shape without its files.

#ifndef FERMATA_ENGINE_MODEL_DUMMY_WEIGHTS_H_
#define FERMATA_ENGINE_MODEL_DUMMY_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/weight_source.h"

namespace fermata {

// BF16, uniform around 0 with a deviation of 1 / sqrt(columns); norms are 1, biases 0. The same name gives the same
// values always. Each tensor is made when it is taken, and owned by whoever took it.
class DummyWeights : public WeightSource {
 public:
  // `tied`: there is no output matrix.
  DummyWeights(std::string path, bool tied) : path_(std::move(path)), tied_(tied) {}

  bool Has(absl::string_view name) const override { return !(tied_ && name == "output.weight"); }

  // RESOURCE_EXHAUSTED if there is no memory for it.
  absl::StatusOr<HostTensor> Take(absl::string_view name, const std::vector<int64_t>& shape) override;
  std::vector<std::string> NotTaken() const override { return {}; }
  const std::string& path() const override { return path_; }

  int64_t element_count() const { return element_count_; }  // of what was taken so far

 private:
  const std::string path_;
  const bool tied_;
  int64_t element_count_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_DUMMY_WEIGHTS_H_
