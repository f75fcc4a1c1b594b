#include "engine/model/llama_weights.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace fermata {
namespace {

std::optional<kernels::WeightType> WeightTypeOf(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return kernels::WeightType::kF32;
    case TensorType::kF16:
      return kernels::WeightType::kF16;
    case TensorType::kBF16:
      return kernels::WeightType::kBF16;
    case TensorType::kQ4_0:
      return kernels::WeightType::kQ4_0;
    case TensorType::kQ4_1:
      return kernels::WeightType::kQ4_1;
    case TensorType::kQ8_0:
      return kernels::WeightType::kQ8_0;
    case TensorType::kQ6_K:
      return kernels::WeightType::kQ6_K;
    default:
      return std::nullopt;
  }
}

// Takes tensors out of a file one by one, remembering the first error and what was taken.
class Loader {
 public:
  Loader(const GgufFile& file, kernels::Backend& backend) : file_(file), backend_(backend) {}

  // Null after an error.
  std::unique_ptr<kernels::Weights> Matrix(const std::string& name, int64_t rows, int64_t columns) {
    return Take(name, {columns, rows});
  }
  std::unique_ptr<kernels::Weights> Vector(const std::string& name, int64_t size) { return Take(name, {size}); }

  bool Has(absl::string_view name) const { return file_.FindTensor(name) != nullptr; }

  // Rope factors are read by the configuration.
  absl::Status Finish() {
    if (!status_.ok()) return status_;
    taken_.insert("rope_freqs.weight");
    for (const GgufTensor& tensor : file_.tensors()) {
      if (!taken_.contains(tensor.name)) {
        return absl::UnimplementedError(absl::StrCat(file_.path(), ": tensor \"", tensor.name,
                                                     "\" is not known: this kind of llama is not served"));
      }
    }
    return absl::OkStatus();
  }

  bool ok() const { return status_.ok(); }

 private:
  std::unique_ptr<kernels::Weights> Take(const std::string& name, const std::vector<int64_t>& shape) {
    if (!status_.ok()) return nullptr;
    absl::StatusOr<std::unique_ptr<kernels::Weights>> weights = TryTake(name, shape);
    status_ = weights.status();
    if (!status_.ok()) return nullptr;
    taken_.insert(name);
    return *std::move(weights);
  }

  absl::StatusOr<std::unique_ptr<kernels::Weights>> TryTake(const std::string& name,
                                                            const std::vector<int64_t>& shape) {
    const GgufTensor* tensor = file_.FindTensor(name);
    if (tensor == nullptr) return absl::NotFoundError(absl::StrCat(file_.path(), ": tensor \"", name, "\" is missing"));
    if (tensor->shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat(file_.path(), ": tensor \"", name, "\" has shape [",
                                                     absl::StrJoin(tensor->shape, ", "), "], wanted is [",
                                                     absl::StrJoin(shape, ", "), "]"));
    }
    const std::optional<kernels::WeightType> type = WeightTypeOf(tensor->type);
    if (!type.has_value()) {
      return absl::UnimplementedError(
          absl::StrCat(file_.path(), ": tensor \"", name, "\" has type ", InfoOf(tensor->type).name,
                       ", which is not served yet; F32, F16, BF16, Q8_0, Q4_0, Q4_1 and Q6_K are"));
    }
    return backend_.Prepare(
        {.type = *type, .rows = shape.size() > 1 ? shape[1] : 1, .columns = shape[0], .data = tensor->data.data()});
  }

  const GgufFile& file_;
  kernels::Backend& backend_;
  absl::Status status_;
  absl::flat_hash_set<std::string> taken_;
};

LlamaLayer LoadLayer(const LlamaConfig& config, int32_t index, Loader& loader) {
  const int64_t embedding = config.embedding_size;
  const int64_t query = int64_t{config.head_count} * config.head_size;
  const int64_t key = int64_t{config.kv_head_count} * config.head_size;
  const int64_t feed_forward = config.feed_forward_size;
  const auto name = [index](absl::string_view part) { return absl::StrCat("blk.", index, ".", part, ".weight"); };
  LlamaLayer layer;
  layer.attention_norm = loader.Vector(name("attn_norm"), embedding);
  layer.query = loader.Matrix(name("attn_q"), query, embedding);
  layer.key = loader.Matrix(name("attn_k"), key, embedding);
  layer.value = loader.Matrix(name("attn_v"), key, embedding);
  layer.attention_output = loader.Matrix(name("attn_output"), embedding, query);
  layer.feed_forward_norm = loader.Vector(name("ffn_norm"), embedding);
  layer.gate = loader.Matrix(name("ffn_gate"), feed_forward, embedding);
  layer.up = loader.Matrix(name("ffn_up"), feed_forward, embedding);
  layer.down = loader.Matrix(name("ffn_down"), embedding, feed_forward);
  return layer;
}

}  // namespace

absl::StatusOr<LlamaWeights> LoadLlamaWeights(const GgufFile& file, const LlamaConfig& config,
                                              kernels::Backend& backend) {
  Loader loader(file, backend);
  LlamaWeights weights;
  weights.token_embedding = loader.Matrix("token_embd.weight", config.vocabulary_size, config.embedding_size);
  weights.output_norm = loader.Vector("output_norm.weight", config.embedding_size);
  if (loader.Has("output.weight")) {
    weights.own_output = loader.Matrix("output.weight", config.vocabulary_size, config.embedding_size);
  }
  for (int32_t i = 0; i < config.layer_count && loader.ok(); ++i) {
    weights.layers.push_back(LoadLayer(config, i, loader));
  }
  const absl::Status status = loader.Finish();
  if (!status.ok()) return status;
  return weights;
}

}  // namespace fermata
