// The weights of a model of the llama family, made ready for a device.

#ifndef FERMATA_ENGINE_MODEL_LLAMA_WEIGHTS_H_
#define FERMATA_ENGINE_MODEL_LLAMA_WEIGHTS_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/llama_config.h"
#include "engine/model/weight_source.h"
#include "kernels/backend.h"

namespace fermata {

// Matrices are [outputs][inputs].
struct LlamaLayer {
  std::unique_ptr<kernels::Weights> attention_norm;     // [embedding]
  std::unique_ptr<kernels::Weights> query;              // [heads * head size][embedding]
  std::unique_ptr<kernels::Weights> key;                // [kv heads * head size][embedding]
  std::unique_ptr<kernels::Weights> value;              // [kv heads * head size][embedding]
  std::unique_ptr<kernels::Weights> query_bias;         // [heads * head size]; null: none, as the next two
  std::unique_ptr<kernels::Weights> key_bias;           // [kv heads * head size]
  std::unique_ptr<kernels::Weights> value_bias;         // [kv heads * head size]
  std::unique_ptr<kernels::Weights> query_norm;         // [head size]; null: none, as the next
  std::unique_ptr<kernels::Weights> key_norm;           // [head size]
  std::unique_ptr<kernels::Weights> attention_output;   // [embedding][heads * head size]
  std::unique_ptr<kernels::Weights> feed_forward_norm;  // [embedding]
  std::unique_ptr<kernels::Weights> gate;               // [feed forward][embedding]
  std::unique_ptr<kernels::Weights> up;                 // [feed forward][embedding]
  std::unique_ptr<kernels::Weights> down;               // [embedding][feed forward]
};

struct LlamaWeights {
  std::vector<std::shared_ptr<const void>> storage;  // of host tensors that the device goes on reading: outlives them

  std::unique_ptr<kernels::Weights> token_embedding;  // [vocabulary][embedding]
  std::unique_ptr<kernels::Weights> output_norm;      // [embedding]
  std::unique_ptr<kernels::Weights> own_output;       // [vocabulary][embedding]; null: tied to the embedding
  std::vector<LlamaLayer> layers;

  const kernels::Weights& output() const { return own_output != nullptr ? *own_output : *token_embedding; }
};

// `source` must outlive the result if backend.KeepsViews(). NOT_FOUND for a missing tensor, INVALID_ARGUMENT for one of
// another shape, UNIMPLEMENTED for one of a type that is not served, or one that the forward pass would have to use and
// does not know; each names file and tensor.
absl::StatusOr<LlamaWeights> LoadLlamaWeights(WeightSource& source, const LlamaConfig& config,
                                              kernels::Backend& backend);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_LLAMA_WEIGHTS_H_
