// A llama so small that a step takes less than a millisecond: for tests that need a real model, but not a sensible one.

#ifndef FERMATA_TESTS_FAKES_TINY_MODEL_H_
#define FERMATA_TESTS_FAKES_TINY_MODEL_H_

#include <cstdint>
#include <string>

#include "engine/model/tensor_type.h"
#include "tests/fakes/gguf_writer.h"

namespace fermata {

struct TinyModelOptions {
  int32_t layer_count = 2;
  int32_t embedding_size = 64;  // a multiple of 256 for K types, of 32 for the other quantised types
  int32_t head_count = 4;
  int32_t kv_head_count = 2;
  int32_t feed_forward_size = 128;  // as embedding_size
  int32_t context_length = 2048;
  TensorType weight_type = TensorType::kF32;
  bool tied = true;  // the output matrix is the embedding
  uint32_t seed = 1;
};

// Tokens 0 to 255 are the bytes; then come a few merges of lower-case letters, then the control tokens.
inline constexpr int32_t kTinyMergeCount = 12;
inline constexpr int32_t kTinyEndOfText = 256 + kTinyMergeCount;  // "<|endoftext|>"
inline constexpr int32_t kTinyImStart = kTinyEndOfText + 1;       // "<|im_start|>"
inline constexpr int32_t kTinyImEnd = kTinyEndOfText + 2;         // "<|im_end|>", the end of a generation
inline constexpr int32_t kTinyVocabularySize = kTinyImEnd + 1;

// The file, ready but for Finish(): a test may break it first.
GgufWriter TinyModel(const TinyModelOptions& options);

// Writes it to a file of the test's own and returns the path.
std::string WriteTinyModel(const TinyModelOptions& options);

}  // namespace fermata

#endif  // FERMATA_TESTS_FAKES_TINY_MODEL_H_
