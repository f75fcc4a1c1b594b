// Opens a model, in a file or a folder, and makes everything that the server needs of it.

#ifndef FERMATA_ENGINE_MODEL_LOAD_MODEL_H_
#define FERMATA_ENGINE_MODEL_LOAD_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/core/model_runner.h"
#include "engine/model/chat_template.h"
#include "engine/model/model_info.h"
#include "engine/model/tokenizer.h"

namespace fermata {

// What computes.
enum class Device { kCpu, kCuda };

// Which kernels compute the forward pass on the CPU.
enum class CpuKernels {
  kFast,   // vector instructions chosen at run time, weights read in their quantised form, activations in 8 bits
  kExact,  // float32 throughout: the reference
};

struct ModelOptions {
  std::string path;            // a .gguf file, or a folder with config.json and safetensors
  bool dummy_weights = false;  // of a folder: its config.json is enough, weights are made up
  Device device = Device::kCpu;
  bool batch_invariant = false;  // on CUDA; the CPU always is
  int32_t threads = 0;           // 0: as many as there are cores

  // What may be used of the device's memory, and how much of that the KV pool is to have: without room for it beside
  // the weights the model is refused. 0: any.
  double device_memory_fraction = 1;
  int64_t kv_bytes = 0;

  CpuKernels cpu_kernels = CpuKernels::kFast;

  // For the fast kernels: "plain", "avx2" or "avx512-vnni"; empty: the best that this machine has. All give the same
  // products to the bit.
  std::string cpu_instructions;

  // Of the KV cache: "f16", "bf16" or "f32"; empty: f16, but f32 for the exact kernels, which keep nothing else, and
  // bf16 on CUDA, which does neither.
  std::string kv_type;
};

// A model opened and checked, before KV memory is allocated.
struct LoadedModel {
  ModelInfo info;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;  // null: none, or not recognised
  absl::Status chat_template_status;            // why it is null
  int64_t kv_bytes_per_token = 0;               // over all layers, K and V
  std::string kv_type;                          // of their elements: "f16", "bf16" or "f32"
  int64_t free_device_bytes = -1;               // beside the weights; below 0: the KV pool is in the host's memory
  int64_t total_device_bytes = -1;              // likewise

  // Allocates the KV pool and makes the runner: called once. `max_step_tokens` and `max_rows` bound one batch.
  // RESOURCE_EXHAUSTED, with the numbers, if the pool cannot be allocated.
  std::function<absl::StatusOr<std::unique_ptr<ModelRunner>>(int32_t block_count, int32_t block_tokens,
                                                             int32_t max_step_tokens, int32_t max_rows)>
      make_runner;
};

// NOT_FOUND, INVALID_ARGUMENT (not a model, truncated, inconsistent; instructions that this machine lacks, a
// kv_type that the kernels do not keep) or
// UNIMPLEMENTED (a type, family, pre-tokenizer or version that is not served yet; CUDA in a build without it),
// UNAVAILABLE (no device), RESOURCE_EXHAUSTED (no memory for the weights; told before any is taken), each naming the
// file and what is wrong. Never crashes on what the file holds.
absl::StatusOr<LoadedModel> LoadModel(const ModelOptions& options);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_LOAD_MODEL_H_
