#include "engine/model/load_model.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "engine/model/device_fit.h"
#include "engine/model/gguf_file.h"
#include "engine/model/gguf_model_info.h"
#include "engine/model/gguf_tokenizer.h"
#include "engine/model/gguf_weights.h"
#include "engine/model/hf_folder.h"
#include "engine/model/llama_config.h"
#include "engine/model/llama_weights.h"
#include "engine/model/transformer.h"
#include "engine/model/transformer_runner.h"
#include "engine/model/weight_source.h"
#include "glog/logging.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/kv_type.h"
#include "kernels/cuda/make_cuda_backend.h"

namespace fermata {
namespace {

// What a runner borrows, in the order in which it must go.
struct Parts {
  std::unique_ptr<GgufFile> file;  // null for a folder
  std::unique_ptr<WeightSource> source;
  std::unique_ptr<kernels::Backend> backend;
  LlamaConfig config;
  LlamaWeights weights;
};

// Of the KV cache, by the words of ModelOptions.
absl::StatusOr<kernels::KvType> ChooseKvType(const ModelOptions& options) {
  const bool exact = options.device == Device::kCpu && options.cpu_kernels == CpuKernels::kExact;
  std::vector<kernels::KvType> types = {kernels::KvType::kF16, kernels::KvType::kBF16, kernels::KvType::kF32};
  if (exact) types = {kernels::KvType::kF32};
  if (options.device == Device::kCuda) types = {kernels::KvType::kBF16};
  if (options.kv_type.empty()) return types[0];
  for (const kernels::KvType type : types) {
    if (options.kv_type == kernels::Name(type)) return type;
  }
  const auto name = [](std::string* out, kernels::KvType type) { out->append(kernels::Name(type)); };
  return absl::InvalidArgumentError(absl::StrCat("kv_type is \"", options.kv_type, "\"; ",
                                                 exact                             ? "the exact kernels keep "
                                                 : options.device == Device::kCuda ? "CUDA keeps "
                                                                                   : "allowed is ",
                                                 absl::StrJoin(types, ", ", name)));
}

absl::StatusOr<std::unique_ptr<kernels::Backend>> MakeBackend(const ModelOptions& options, kernels::KvType kv_type) {
  if (options.device == Device::kCuda) return kernels::MakeCudaBackend(options.batch_invariant);
  const int32_t cores = std::max<int32_t>(1, static_cast<int32_t>(std::thread::hardware_concurrency()));
  kernels::CpuBackendOptions cpu = kernels::CpuBackend::BestOptions(options.threads > 0 ? options.threads : cores);
  cpu.exact = options.cpu_kernels == CpuKernels::kExact;
  cpu.kv_type = kv_type;
  if (!options.cpu_instructions.empty()) {
    std::vector<absl::string_view> names;
    for (const kernels::InstructionSet set : kernels::SupportedInstructionSets()) {
      names.push_back(kernels::Name(set));
      if (names.back() == options.cpu_instructions) cpu.instruction_set = set;
    }
    if (kernels::Name(cpu.instruction_set) != options.cpu_instructions) {
      return absl::InvalidArgumentError(absl::StrCat("cpu_instructions is \"", options.cpu_instructions,
                                                     "\"; this machine has ", absl::StrJoin(names, ", ")));
    }
  }
  auto backend = std::make_unique<kernels::CpuBackend>(cpu);
  LOG(INFO) << "the CPU computes with " << backend->Describe();
  return backend;
}

absl::StatusOr<std::unique_ptr<ModelRunner>> MakeRunner(const std::shared_ptr<Parts>& parts, int32_t block_count,
                                                        int32_t block_tokens, int32_t max_step_tokens,
                                                        int32_t max_rows) {
  const LlamaConfig& config = parts->config;
  const absl::Status kv = parts->backend->AllocateKv({.block_count = block_count,
                                                      .block_tokens = block_tokens,
                                                      .layer_count = config.layer_count,
                                                      .kv_head_count = config.kv_head_count,
                                                      .head_size = config.head_size});
  if (!kv.ok()) return kv;
  const int32_t outputs = std::min(max_rows, max_step_tokens);
  absl::StatusOr<std::unique_ptr<Transformer>> transformer =
      Transformer::Create(config, parts->weights, *parts->backend, max_step_tokens, outputs);
  if (!transformer.ok()) return transformer.status();
  const absl::Status tuned = (*transformer)->Tune();
  if (!tuned.ok()) return tuned;
  return std::make_unique<TransformerRunner>(parts, *std::move(transformer), config.vocabulary_size, max_step_tokens,
                                             outputs);
}

// Leaves the template null, and says why, if there is none (`jinja` is empty) or it is not known.
void AddChatTemplate(const std::string& jinja, LoadedModel& model) {
  if (jinja.empty()) {
    model.chat_template_status = absl::UnimplementedError("the model has no chat template");
    return;
  }
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template = RecogniseChatTemplate(jinja);
  model.chat_template_status = chat_template.status();
  if (chat_template.ok()) model.chat_template = *std::move(chat_template);
  model.info.has_chat_template = model.chat_template != nullptr;
}

// RESOURCE_EXHAUSTED if the device has not the memory for the weights and the KV pool, before any of it is taken.
absl::Status CheckFit(const ModelOptions& options, const Parts& parts) {
  const int64_t needed =
      parts.config.weight_elements(parts.source->Has("output.weight")) * parts.backend->kv_element_bytes();
  return CheckDeviceMemory({.weight_bytes = needed,
                            .kv_bytes = options.kv_bytes,
                            .free_bytes = parts.backend->free_memory_bytes(),
                            .total_bytes = parts.backend->total_memory_bytes(),
                            .fraction = options.device_memory_fraction},
                           parts.source->path());
}

// Prepares the weights of parts->source, and puts all together.
absl::StatusOr<LoadedModel> Assemble(const ModelOptions& options, const std::shared_ptr<Parts>& parts, ModelInfo info,
                                     std::unique_ptr<Tokenizer> tokenizer, const std::string& jinja) {
  const absl::StatusOr<kernels::KvType> kv_type = ChooseKvType(options);
  if (!kv_type.ok()) return kv_type.status();
  absl::StatusOr<std::unique_ptr<kernels::Backend>> backend = MakeBackend(options, *kv_type);
  if (!backend.ok()) return backend.status();
  parts->backend = *std::move(backend);
  const absl::Status fits = CheckFit(options, *parts);
  if (!fits.ok()) return fits;
  absl::StatusOr<LlamaWeights> weights = LoadLlamaWeights(*parts->source, parts->config, *parts->backend);
  if (!weights.ok()) return weights.status();
  parts->weights = *std::move(weights);

  LoadedModel model;
  model.info = std::move(info);
  AddChatTemplate(jinja, model);
  model.tokenizer = std::move(tokenizer);
  model.kv_bytes_per_token = parts->config.kv_elements_per_token() * parts->backend->kv_element_bytes();
  model.kv_type = kernels::Name(*kv_type);
  model.free_device_bytes = parts->backend->free_memory_bytes();
  model.total_device_bytes = parts->backend->total_memory_bytes();
  model.make_runner = [parts](int32_t block_count, int32_t block_tokens, int32_t max_step_tokens, int32_t max_rows) {
    return MakeRunner(parts, block_count, block_tokens, max_step_tokens, max_rows);
  };
  return absl::StatusOr<LoadedModel>(std::move(model));
}

absl::StatusOr<LoadedModel> LoadGguf(const ModelOptions& options) {
  absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(options.path);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::unique_ptr<BpeTokenizer>> tokenizer = MakeTokenizer(**file);
  if (!tokenizer.ok()) return tokenizer.status();
  absl::StatusOr<ModelInfo> info = DescribeModel(**file, **tokenizer);
  if (!info.ok()) return info.status();
  absl::StatusOr<LlamaConfig> config = ReadLlamaConfig(**file, (*tokenizer)->vocabulary_size());
  if (!config.ok()) return config.status();
  const auto parts = std::make_shared<Parts>();
  parts->file = *std::move(file);
  parts->source = std::make_unique<GgufWeights>(*parts->file);
  parts->config = *std::move(config);
  const std::string jinja = parts->file->GetString("tokenizer.chat_template").value_or("");
  return Assemble(options, parts, *std::move(info), *std::move(tokenizer), jinja);
}

absl::StatusOr<LoadedModel> LoadFolder(const ModelOptions& options) {
  absl::StatusOr<HfModel> folder = OpenHfFolder(options.path, options.dummy_weights);
  if (!folder.ok()) return folder.status();
  const auto parts = std::make_shared<Parts>();
  parts->source = std::move(folder->source);
  parts->config = std::move(folder->config);
  return Assemble(options, parts, std::move(folder->info), std::move(folder->tokenizer), folder->chat_template);
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const ModelOptions& options) {
  std::error_code error;  // whatever it is, opening the file will tell
  if (std::filesystem::is_directory(options.path, error)) return LoadFolder(options);
  if (options.dummy_weights) {
    return absl::InvalidArgumentError(absl::StrCat(options.path, ": made-up weights need a folder with a config.json"));
  }
  return LoadGguf(options);
}

}  // namespace fermata
