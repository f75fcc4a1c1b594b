#include "engine/model/gguf_weights.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace fermata {

absl::StatusOr<HostTensor> GgufWeights::Take(absl::string_view name, const std::vector<int64_t>& shape) {
  const GgufTensor* tensor = file_.FindTensor(name);
  if (tensor == nullptr) return absl::NotFoundError(absl::StrCat(path(), ": tensor \"", name, "\" is missing"));
  // The file writes the innermost first.
  const std::vector<int64_t> wanted(shape.rbegin(), shape.rend());
  if (tensor->shape != wanted) {
    return absl::InvalidArgumentError(absl::StrCat(path(), ": tensor \"", name, "\" has shape [",
                                                   absl::StrJoin(tensor->shape, ", "), "], wanted is [",
                                                   absl::StrJoin(wanted, ", "), "]"));
  }
  taken_.insert(std::string(name));
  released_.Took(tensor->data);
  return HostTensor{.type = tensor->type, .shape = shape, .data = tensor->data.data(), .owner = nullptr};
}

std::vector<std::string> GgufWeights::NotTaken() const {
  std::vector<std::string> names;
  for (const GgufTensor& tensor : file_.tensors()) {
    // Rope factors are read by the configuration.
    if (!taken_.contains(tensor.name) && tensor.name != "rope_freqs.weight") names.push_back(tensor.name);
  }
  return names;
}

}  // namespace fermata
