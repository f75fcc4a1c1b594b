// Drives a Transformer without sampler or engine: tokens are given, whole rows of logits come back.

#ifndef FERMATA_TESTS_MODEL_LOGITS_DRIVER_H_
#define FERMATA_TESTS_MODEL_LOGITS_DRIVER_H_

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/gguf_file.h"
#include "engine/model/llama_config.h"
#include "engine/model/llama_weights.h"
#include "engine/model/transformer.h"
#include "engine/model/weight_source.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"

namespace fermata {

// Tokens whose logits are wanted from position `first_output` on.
struct ForcedSequence {
  std::vector<int32_t> tokens;
  int32_t first_output = 0;
  int32_t computed = 0;
  std::vector<int32_t> blocks;
  std::vector<std::vector<float>> logits;  // after token first_output, first_output + 1, ...
};

// All numbers of a file, such as tokens or logits that others made; none if there is no such file.
template <typename T>
std::vector<T> ReadNumbers(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<T> numbers(bytes.size() / sizeof(T));
  std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(T));
  return numbers;
}

class LogitsDriver {
 public:
  // A .gguf file, or a folder with config.json and safetensors. Fails the test if the model cannot be loaded.
  LogitsDriver(const std::string& path, const kernels::CpuBackendOptions& backend_options);
  LogitsDriver(const std::string& path, std::unique_ptr<kernels::Backend> backend);

  int32_t vocabulary_size() const { return config_.vocabulary_size; }

  // Its blocks come from the far end of the pool, backwards, so that neighbours are not in order.
  ForcedSequence Begin(const std::vector<int32_t>& tokens, int32_t first_output);

  // One step: the next counts[i] tokens of each sequence, at most kMaxRows in all.
  void Step(const std::vector<ForcedSequence*>& sequences, const std::vector<int32_t>& counts);

  // All tokens, at most `chunk` in a step.
  void Run(ForcedSequence& sequence, int32_t chunk);

  static constexpr int32_t kMaxRows = 256;

 private:
  struct Opened {
    std::unique_ptr<GgufFile> file;
    std::unique_ptr<WeightSource> source;
    LlamaConfig config;
  };

  static Opened Open(const std::string& path);
  LogitsDriver(Opened opened, std::unique_ptr<kernels::Backend> backend);

  static constexpr int32_t kBlockTokens = 16;
  static constexpr int32_t kBlockCount = 512;

  std::unique_ptr<GgufFile> file_;  // null for a folder
  std::unique_ptr<WeightSource> source_;
  LlamaConfig config_;
  std::unique_ptr<kernels::Backend> backend_;
  LlamaWeights weights_;
  std::unique_ptr<Transformer> transformer_;
  int32_t next_block_ = kBlockCount;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_MODEL_LOGITS_DRIVER_H_
