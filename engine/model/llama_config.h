// The shape of a model of the llama family: llama and mistral, qwen2 (biases), qwen3 (norms over heads).

#ifndef FERMATA_ENGINE_MODEL_LLAMA_CONFIG_H_
#define FERMATA_ENGINE_MODEL_LLAMA_CONFIG_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/gguf_file.h"

namespace fermata {

struct LlamaConfig {
  int32_t layer_count = 0;
  int32_t embedding_size = 0;
  int32_t head_count = 0;     // of queries
  int32_t kv_head_count = 0;  // of keys and values; divides head_count
  int32_t head_size = 0;      // even
  int32_t feed_forward_size = 0;
  int32_t vocabulary_size = 0;
  float norm_epsilon = 0;
  bool attention_biases = false;  // added to queries, keys and values
  bool head_norms = false;        // RMS norms over each head of queries and of keys, before rope

  // Whether the weights are made for rope that pairs element i of a head with i + head_size / 2. The kernels pair 2i
  // with 2i + 1: rows of queries and keys are put in that order at load, which changes no score, for both sides of each
  // dot product are permuted alike.
  bool rope_halves = false;

  // [head_size / 2]: how far pair i of a head is turned from one position to the next, rope scaling included.
  std::vector<float> rope_frequencies;

  // Elements of all matrices; with or without an output matrix beside the embedding.
  int64_t weight_elements(bool own_output) const {
    const int64_t heads = int64_t{2} * (head_count + kv_head_count) * head_size;
    const int64_t layer = embedding_size * (heads + int64_t{3} * feed_forward_size);
    return layer_count * layer + int64_t{own_output ? 2 : 1} * vocabulary_size * embedding_size;
  }

  int64_t kv_elements_per_token() const { return int64_t{2} * layer_count * kv_head_count * head_size; }
};

// Reads and checks the metadata. INVALID_ARGUMENT or NOT_FOUND naming the key, UNIMPLEMENTED for another family
// (served: llama, under which mistral is written, qwen2, qwen3) or a kind of rope scaling that is not served (linear
// is, and Llama 3's, which files carry as a tensor of factors).
absl::StatusOr<LlamaConfig> ReadLlamaConfig(const GgufFile& file, int32_t vocabulary_size);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_LLAMA_CONFIG_H_
