#include "engine/model/llama_config.h"

#include <cmath>
#include <cstring>
#include <string>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace fermata {
namespace {

constexpr absl::string_view kFamilies[] = {"llama", "qwen2", "qwen3"};
constexpr int64_t kMaxSize = 1 << 24;  // of any dimension: so that no product of two overflows
constexpr double kDefaultRopeBase = 10000.0;

// Reads integers with a range, remembering the first error.
class Reader {
 public:
  Reader(const GgufFile& file, absl::string_view family) : file_(file), family_(family) {}

  std::string Key(absl::string_view name) const { return absl::StrCat(family_, ".", name); }

  int32_t Int(absl::string_view name) {
    const absl::StatusOr<int64_t> value = file_.GetInt(Key(name));
    if (!value.ok()) {
      Fail(value.status());
      return 1;
    }
    return Checked(name, *value);
  }

  int32_t IntOr(absl::string_view name, int64_t otherwise) {
    return file_.Has(Key(name)) ? Int(name) : Checked(name, otherwise);
  }

  double FloatOr(absl::string_view name, double otherwise) {
    if (!file_.Has(Key(name))) return otherwise;
    const absl::StatusOr<double> value = file_.GetFloat(Key(name));
    if (!value.ok() || !std::isfinite(*value) || *value < 0) {
      Fail(absl::InvalidArgumentError(
          absl::StrCat(file_.path(), ": key \"", Key(name), "\" is no float of at least 0")));
      return otherwise;
    }
    return *value;
  }

  void Require(bool condition, absl::string_view what) {
    if (!condition) Fail(absl::InvalidArgumentError(absl::StrCat(file_.path(), ": ", what)));
  }

  void Fail(const absl::Status& status) { status_.Update(status); }
  const absl::Status& status() const { return status_; }

 private:
  int32_t Checked(absl::string_view name, int64_t value) {
    if (value >= 1 && value <= kMaxSize) return static_cast<int32_t>(value);
    Fail(absl::InvalidArgumentError(
        absl::StrCat(file_.path(), ": key \"", Key(name), "\" is ", value, "; possible are 1 to ", kMaxSize)));
    return 1;
  }

  const GgufFile& file_;
  const std::string family_;
  absl::Status status_;
};

// The factor by which positions are squeezed to reach a longer context.
double LinearScale(const GgufFile& file, Reader& reader) {
  const std::string key = reader.Key("rope.scaling.type");
  if (!file.Has(key)) return 1.0;
  const absl::StatusOr<std::string> type = file.GetString(key);
  if (!type.ok()) {
    reader.Fail(type.status());
    return 1.0;
  }
  if (*type == "none") return 1.0;
  if (*type != "linear") {
    reader.Fail(absl::UnimplementedError(
        absl::StrCat(file.path(), ": rope scaling \"", *type, "\" is not served; linear and Llama 3's are")));
    return 1.0;
  }
  const double factor = reader.FloatOr("rope.scaling.factor", 1.0);
  reader.Require(factor > 0, "rope.scaling.factor is 0");
  return factor;
}

// Frequencies as in Su et al., "RoFormer", 2021. Llama 3's scaling divides each by a factor of its own, which files
// carry.
std::vector<float> RopeFrequencies(const GgufFile& file, int32_t head_size, Reader& reader) {
  const double base = reader.FloatOr("rope.freq_base", kDefaultRopeBase);
  const double scale = LinearScale(file, reader);
  const GgufTensor* factors = file.FindTensor("rope_freqs.weight");
  if (factors != nullptr && (factors->type != TensorType::kF32 || factors->element_count != head_size / 2)) {
    reader.Require(false, absl::StrCat("rope_freqs.weight is not ", head_size / 2, " float32"));
    factors = nullptr;
  }
  std::vector<float> frequencies(head_size / 2);
  for (int32_t i = 0; i < head_size / 2; ++i) {
    float factor = 1.0f;
    if (factors != nullptr) std::memcpy(&factor, factors->data.data() + i * sizeof(float), sizeof(float));
    if (!(factor > 0)) {
      reader.Require(false, "rope_freqs.weight has a factor that is not above 0");
      break;
    }
    frequencies[i] = static_cast<float>(std::pow(base, -2.0 * i / head_size) / scale / factor);
  }
  return frequencies;
}

}  // namespace

absl::StatusOr<LlamaConfig> ReadLlamaConfig(const GgufFile& file, int32_t vocabulary_size) {
  const absl::StatusOr<std::string> family = file.GetString("general.architecture");
  if (!family.ok()) return family.status();
  if (!absl::c_linear_search(kFamilies, *family)) {
    return absl::UnimplementedError(absl::StrCat(file.path(), ": family \"", *family, "\" is not served; ",
                                                 absl::StrJoin(kFamilies, ", "), " are"));
  }
  Reader reader(file, *family);
  LlamaConfig config;
  config.attention_biases = *family == "qwen2";
  config.head_norms = *family == "qwen3";
  // Conversion to GGUF reorders the rows of llamas alone.
  config.rope_halves = *family != "llama";
  config.layer_count = reader.Int("block_count");
  config.embedding_size = reader.Int("embedding_length");
  config.feed_forward_size = reader.Int("feed_forward_length");
  config.head_count = reader.Int("attention.head_count");
  config.kv_head_count = reader.IntOr("attention.head_count_kv", config.head_count);
  config.vocabulary_size = vocabulary_size;
  config.norm_epsilon = static_cast<float>(reader.FloatOr("attention.layer_norm_rms_epsilon", 1e-5));
  reader.Require(config.head_count % config.kv_head_count == 0, "attention.head_count_kv does not divide head_count");
  config.head_size = reader.IntOr("attention.key_length", std::max(1, config.embedding_size / config.head_count));
  reader.Require(config.head_size % 2 == 0, "the size of a head is odd");
  reader.Require(reader.IntOr("attention.value_length", config.head_size) == config.head_size,
                 "attention.value_length is not attention.key_length: not served");
  reader.Require(reader.IntOr("rope.dimension_count", config.head_size) == config.head_size,
                 "rope.dimension_count is not the size of a head: not served");
  if (!reader.status().ok()) return reader.status();
  const int64_t context = file.GetInt(reader.Key("context_length")).value_or(0);
  const int64_t window = file.GetInt(reader.Key("attention.sliding_window")).value_or(0);
  if (window > 0 && window < context) {
    return absl::UnimplementedError(absl::StrCat(file.path(), ": attention in a sliding window of ", window,
                                                 " tokens, less than the context of ", context, ", is not served"));
  }
  config.rope_frequencies = RopeFrequencies(file, config.head_size, reader);
  if (!reader.status().ok()) return reader.status();
  return config;
}

}  // namespace fermata
