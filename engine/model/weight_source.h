// Where the weights of a model come from, tensor by tensor.

#ifndef FERMATA_ENGINE_MODEL_WEIGHT_SOURCE_H_
#define FERMATA_ENGINE_MODEL_WEIGHT_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/model/tensor_type.h"

namespace fermata {

// A tensor in host memory.
struct HostTensor {
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;         // outermost first: a matrix is [outputs][inputs]
  const uint8_t* data = nullptr;      // all of shape, packed as `type` says
  std::shared_ptr<const void> owner;  // keeps `data`; null: it lives as long as the source
};

// Tensors are asked for by the names that GGUF files give them ("blk.0.attn_q.weight"), and one after the other, so
// that a source which makes them up, or copies them, needs memory for one at a time. One thread at a time.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  virtual bool Has(absl::string_view name) const = 0;

  // NOT_FOUND if there is none of that name. `shape` is what the caller wants: INVALID_ARGUMENT, naming file and
  // tensor, if it has another one.
  virtual absl::StatusOr<HostTensor> Take(absl::string_view name, const std::vector<int64_t>& shape) = 0;

  // The names, as the source spells them, of tensors that were not taken and that a forward pass would need.
  virtual std::vector<std::string> NotTaken() const = 0;

  // What messages begin with: the file or the folder.
  virtual const std::string& path() const = 0;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_WEIGHT_SOURCE_H_
