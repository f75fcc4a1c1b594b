#include "engine/model/llama_weights.h"

#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "glog/logging.h"

namespace fermata {
namespace {

constexpr absl::Duration kTellProgressEvery = absl::Seconds(2);

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
    case TensorType::kQ4_K:
      return kernels::WeightType::kQ4_K;
    case TensorType::kQ5_K:
      return kernels::WeightType::kQ5_K;
    case TensorType::kQ5_0:
      return kernels::WeightType::kQ5_0;
    case TensorType::kQ5_1:
      return kernels::WeightType::kQ5_1;
    case TensorType::kIQ4_NL:
      return kernels::WeightType::kIQ4_NL;
    default:
      return std::nullopt;
  }
}

// Moves pairs of elements that lie half a head apart beside each other: row 2i of a head is its old row i, row 2i + 1
// its old row i + half. `row_bytes` of each row.
void PairRows(const uint8_t* from, int64_t heads, int64_t head_size, int64_t row_bytes, uint8_t* to) {
  const int64_t half = head_size / 2;
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t i = 0; i < head_size; ++i) {
      const int64_t old_row = h * head_size + i / 2 + (i % 2) * half;
      std::memcpy(to + (h * head_size + i) * row_bytes, from + old_row * row_bytes, row_bytes);
    }
  }
}

// Takes tensors out of a source one by one, remembering the first error.
class Loader {
 public:
  // Storage of tensors that the device goes on reading is put into `storage`.
  Loader(WeightSource& source, kernels::Backend& backend, std::vector<std::shared_ptr<const void>>& storage)
      : source_(source), backend_(backend), storage_(storage) {}

  // Null after an error. `paired_head` above 0: rows (elements of a vector) are of heads of that size, and are paired.
  std::unique_ptr<kernels::Weights> Matrix(const std::string& name, int64_t rows, int64_t columns,
                                           int64_t paired_head = 0) {
    return Take(name, {rows, columns}, paired_head);
  }
  std::unique_ptr<kernels::Weights> Vector(const std::string& name, int64_t size, int64_t paired_head = 0) {
    return Take(name, {size}, paired_head);
  }

  // Matrices that are always multiplied together, all with `columns`; nulls after an error.
  struct Part {
    std::string name;
    int64_t rows;
    int64_t paired_head = 0;
  };
  std::vector<std::unique_ptr<kernels::Weights>> Together(const std::vector<Part>& parts, int64_t columns) {
    std::vector<std::unique_ptr<kernels::Weights>> none(parts.size());
    std::vector<kernels::WeightView> views;
    std::vector<std::shared_ptr<const void>> owners;
    for (const Part& part : parts) {
      if (!status_.ok()) return none;
      absl::StatusOr<TakenTensor> taken = TakeTensor(part.name, {part.rows, columns}, part.paired_head);
      status_ = taken.status();
      if (!status_.ok()) return none;
      views.push_back(taken->view);
      owners.push_back(std::move(taken->owner));
    }
    absl::StatusOr<std::vector<std::unique_ptr<kernels::Weights>>> weights = backend_.PrepareTogether(views);
    status_ = weights.status();
    if (!status_.ok()) return none;
    for (std::shared_ptr<const void>& owner : owners) Keep(std::move(owner));
    return *std::move(weights);
  }

  bool Has(absl::string_view name) const { return source_.Has(name); }

  absl::Status Finish() {
    if (!status_.ok()) return status_;
    const std::vector<std::string> rest = source_.NotTaken();
    if (rest.empty()) return absl::OkStatus();
    return absl::UnimplementedError(
        absl::StrCat(source_.path(), ": tensor \"", rest[0], "\" is not known: this kind of model is not served"));
  }

  bool ok() const { return status_.ok(); }

 private:
  std::unique_ptr<kernels::Weights> Take(const std::string& name, const std::vector<int64_t>& shape,
                                         int64_t paired_head) {
    if (!status_.ok()) return nullptr;
    absl::StatusOr<TakenTensor> taken = TakeTensor(name, shape, paired_head);
    status_ = taken.status();
    if (!status_.ok()) return nullptr;
    absl::StatusOr<std::unique_ptr<kernels::Weights>> weights = backend_.Prepare(taken->view);
    status_ = weights.status();
    if (!status_.ok()) return nullptr;
    Keep(std::move(taken->owner));
    return *std::move(weights);
  }

  // `owner` keeps what the view shows; null: the source does.
  struct TakenTensor {
    kernels::WeightView view;
    std::shared_ptr<const void> owner;
  };

  void Keep(std::shared_ptr<const void> owner) {
    if (owner != nullptr && backend_.KeepsViews()) storage_.push_back(std::move(owner));
  }

  absl::StatusOr<TakenTensor> TakeTensor(const std::string& name, const std::vector<int64_t>& shape,
                                         int64_t paired_head) {
    absl::StatusOr<HostTensor> tensor = source_.Take(name, shape);
    if (!tensor.ok()) return tensor.status();
    const std::optional<kernels::WeightType> type = WeightTypeOf(tensor->type);
    if (!type.has_value()) {
      return absl::UnimplementedError(
          absl::StrCat(source_.path(), ": tensor \"", name, "\" has type ", InfoOf(tensor->type).name,
                       ", which is not served yet; F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q5_0, Q5_1, Q4_K, Q4_0, Q4_1 "
                       "and IQ4_NL are"));
    }
    kernels::WeightView view = {.type = *type, .rows = 1, .columns = shape.back(), .data = tensor->data};
    if (shape.size() > 1) view.rows = shape[0];
    if (paired_head > 0) {
      const bool vector = shape.size() == 1;
      if (vector && kernels::InfoOf(*type).block_elements > 1) {
        return absl::UnimplementedError(absl::StrCat(source_.path(), ": vector \"", name, "\" is quantised"));
      }
      const int64_t row_bytes = vector ? kernels::InfoOf(*type).block_bytes : view.row_bytes();
      const auto paired = std::make_shared<std::vector<uint8_t>>(shape[0] * row_bytes);
      PairRows(view.data, shape[0] / paired_head, paired_head, row_bytes, paired->data());
      view.data = paired->data();
      tensor->owner = paired;
    }
    return TakenTensor{view, std::move(tensor->owner)};
  }

  WeightSource& source_;
  kernels::Backend& backend_;
  std::vector<std::shared_ptr<const void>>& storage_;
  absl::Status status_;
};

LlamaLayer LoadLayer(const LlamaConfig& config, int32_t index, Loader& loader) {
  const int64_t embedding = config.embedding_size;
  const int64_t query = int64_t{config.head_count} * config.head_size;
  const int64_t key = int64_t{config.kv_head_count} * config.head_size;
  const int64_t feed_forward = config.feed_forward_size;
  const int64_t paired_head = config.rope_halves ? config.head_size : 0;
  const auto name = [index](absl::string_view part) { return absl::StrCat("blk.", index, ".", part, ".weight"); };
  const auto bias = [index](absl::string_view part) { return absl::StrCat("blk.", index, ".", part, ".bias"); };
  LlamaLayer layer;
  layer.attention_norm = loader.Vector(name("attn_norm"), embedding);
  auto products = loader.Together(
      {{name("attn_q"), query, paired_head}, {name("attn_k"), key, paired_head}, {name("attn_v"), key}}, embedding);
  layer.query = std::move(products[0]);
  layer.key = std::move(products[1]);
  layer.value = std::move(products[2]);
  if (config.attention_biases) {
    layer.query_bias = loader.Vector(bias("attn_q"), query, paired_head);
    layer.key_bias = loader.Vector(bias("attn_k"), key, paired_head);
    layer.value_bias = loader.Vector(bias("attn_v"), key);
  }
  if (config.head_norms) {
    layer.query_norm = loader.Vector(name("attn_q_norm"), config.head_size, paired_head);
    layer.key_norm = loader.Vector(name("attn_k_norm"), config.head_size, paired_head);
  }
  layer.attention_output = loader.Matrix(name("attn_output"), embedding, query);
  layer.feed_forward_norm = loader.Vector(name("ffn_norm"), embedding);
  products = loader.Together({{name("ffn_gate"), feed_forward}, {name("ffn_up"), feed_forward}}, embedding);
  layer.gate = std::move(products[0]);
  layer.up = std::move(products[1]);
  layer.down = loader.Matrix(name("ffn_down"), embedding, feed_forward);
  return layer;
}

}  // namespace

absl::StatusOr<LlamaWeights> LoadLlamaWeights(WeightSource& source, const LlamaConfig& config,
                                              kernels::Backend& backend) {
  LlamaWeights weights;
  absl::Time told = absl::Now();
  Loader loader(source, backend, weights.storage);
  weights.token_embedding = loader.Matrix("token_embd.weight", config.vocabulary_size, config.embedding_size);
  weights.output_norm = loader.Vector("output_norm.weight", config.embedding_size);
  if (loader.Has("output.weight")) {
    weights.own_output = loader.Matrix("output.weight", config.vocabulary_size, config.embedding_size);
  }
  for (int32_t i = 0; i < config.layer_count && loader.ok(); ++i) {
    weights.layers.push_back(LoadLayer(config, i, loader));
    if (absl::Now() - told < kTellProgressEvery) continue;
    told = absl::Now();
    LOG(INFO) << source.path() << ": " << i + 1 << " of " << config.layer_count << " layers are loaded";
  }
  const absl::Status status = loader.Finish();
  if (!status.ok()) return status;
  return absl::StatusOr<LlamaWeights>(std::move(weights));
}

}  // namespace fermata
