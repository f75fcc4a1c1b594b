#include "engine/model/hf_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model/json_reader.h"

namespace fermata {
namespace {

constexpr absl::string_view kFamilies[] = {"llama", "mistral", "qwen2", "qwen3"};
constexpr int64_t kMaxSize = 1 << 24;  // of any dimension: so that no product of two overflows
constexpr int64_t kMaxLayers = 1 << 16;
constexpr double kPi = 3.14159265358979323846;

absl::Status NotServed(const std::string& path, absl::string_view what) {
  return absl::UnimplementedError(absl::StrCat(path, ": ", what, " is not served"));
}

// Llama 3's scaling, as its model card and configuration define it: fast turning pairs are left alone, slow ones are
// slowed down by `factor`, those between go over from one to the other.
void ScaleAsLlama3(const nlohmann::json& scaling, JsonReader& config, std::vector<double>& frequencies) {
  JsonReader reader(scaling, config.path());
  const double factor = reader.FloatOr("factor", 0);
  const double low = reader.FloatOr("low_freq_factor", 1);
  const double high = reader.FloatOr("high_freq_factor", 4);
  const double original = reader.Int("original_max_position_embeddings", std::numeric_limits<int32_t>::max());
  reader.Require(factor > 0 && low > 0 && high > low, "rope scaling llama3 has factors that are out of order");
  config.Fail(reader.status());
  if (!reader.status().ok()) return;
  for (double& frequency : frequencies) {
    const double turns = original * frequency / (2 * kPi);  // over the original context
    if (turns > high) continue;
    const double smooth = turns < low ? 0.0 : (turns - low) / (high - low);
    frequency = (1 - smooth) * frequency / factor + smooth * frequency;
  }
}

std::vector<float> RopeFrequencies(JsonReader& reader, int32_t head_size) {
  // Newer files keep base and scaling together.
  const nlohmann::json* parameters = FindField(reader.object(), "rope_parameters");
  const nlohmann::json* scaling = parameters != nullptr ? parameters : FindField(reader.object(), "rope_scaling");
  double base = reader.FloatOr("rope_theta", 10000.0);
  std::vector<double> frequencies(head_size / 2);
  std::string type = "default";
  double factor = 1;
  if (scaling != nullptr) {
    JsonReader scaling_reader(*scaling, reader.path());
    scaling_reader.Require(scaling->is_object(), "rope scaling is no object");
    base = scaling_reader.FloatOr("rope_theta", base);
    type = scaling_reader.StringOr("rope_type", scaling_reader.StringOr("type", "default"));
    if (type == "linear") factor = scaling_reader.FloatOr("factor", 0);
    scaling_reader.Require(factor > 0, "the factor of rope scaling is not above 0");
    reader.Fail(scaling_reader.status());
  }
  reader.Require(base > 0, "\"rope_theta\" is 0");
  if (!reader.status().ok()) return {};
  if (type != "default" && type != "linear" && type != "llama3") {
    reader.Fail(NotServed(reader.path(), absl::StrCat("rope scaling \"", type, "\"")));
    return {};
  }
  for (int32_t i = 0; i < head_size / 2; ++i) frequencies[i] = std::pow(base, -2.0 * i / head_size) / factor;
  if (type == "llama3") ScaleAsLlama3(*scaling, reader, frequencies);
  return std::vector<float>(frequencies.begin(), frequencies.end());
}

// What would change the results and is not computed.
void RefuseOthers(JsonReader& reader, HfConfig& config) {
  const std::string activation = reader.StringOr("hidden_act", "silu");
  if (activation != "silu") reader.Fail(NotServed(reader.path(), absl::StrCat("activation \"", activation, "\"")));
  if (reader.Has("quantization_config")) reader.Fail(NotServed(reader.path(), "a quantised safetensors model"));
  if (reader.BoolOr("mlp_bias", false)) reader.Fail(NotServed(reader.path(), "mlp_bias"));
  if (config.family != "qwen2" && reader.BoolOr("attention_bias", false)) {
    reader.Fail(NotServed(reader.path(), absl::StrCat("attention_bias in family ", config.family)));
  }
  const bool qwen = config.family == "qwen2" || config.family == "qwen3";
  const bool window_used = config.family == "mistral" || (qwen && reader.BoolOr("use_sliding_window", false));
  if (window_used && reader.Has("sliding_window")) {
    const int32_t window = reader.Int("sliding_window", std::numeric_limits<int32_t>::max());
    if (reader.status().ok() && window < config.context_length) {
      reader.Fail(NotServed(
          reader.path(), absl::StrCat("attention in a sliding window of ", window, " tokens, less than the context of ",
                                      config.context_length, " tokens,")));
    }
  }
}

// "eos_token_id" is a number or a list of them.
void AddEnds(JsonReader& reader, int32_t vocabulary_size, std::vector<TokenId>* ends) {
  const nlohmann::json* value = FindField(reader.object(), "eos_token_id");
  if (value == nullptr) return;
  const nlohmann::json list = value->is_array() ? *value : nlohmann::json::array({*value});
  for (const nlohmann::json& end : list) {
    const bool small = end.is_number_unsigned() && end.get<uint64_t>() < static_cast<uint64_t>(vocabulary_size);
    reader.Require(small, "\"eos_token_id\" is not in the vocabulary");
    if (!small) return;
    const TokenId token{static_cast<int32_t>(end.get<int64_t>())};
    if (!absl::c_linear_search(*ends, token)) ends->push_back(token);
  }
}

absl::Status AddGenerationConfig(const std::string& folder, HfConfig& config) {
  const std::string path = absl::StrCat(folder, "/generation_config.json");
  const absl::StatusOr<nlohmann::json> json = ReadJsonFile(path);
  if (absl::IsNotFound(json.status())) return absl::OkStatus();
  if (!json.ok()) return json.status();
  JsonReader reader(*json, path);
  AddEnds(reader, config.llama.vocabulary_size, &config.end_of_generation);
  return reader.status();
}

}  // namespace

absl::StatusOr<HfConfig> ReadHfConfig(const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/config.json");
  const absl::StatusOr<nlohmann::json> json = ReadJsonFile(path);
  if (!json.ok()) return json.status();
  JsonReader reader(*json, path);
  HfConfig config;
  config.family = reader.StringOr("model_type", "");
  if (!absl::c_linear_search(kFamilies, config.family)) {
    return absl::UnimplementedError(absl::StrCat(path, ": family (model_type) \"", config.family, "\" is not served; ",
                                                 absl::StrJoin(kFamilies, ", "), " are"));
  }
  LlamaConfig& llama = config.llama;
  llama.layer_count = reader.Int("num_hidden_layers", kMaxLayers);
  llama.embedding_size = reader.Int("hidden_size", kMaxSize);
  llama.feed_forward_size = reader.Int("intermediate_size", kMaxSize);
  llama.head_count = reader.Int("num_attention_heads", kMaxSize);
  llama.kv_head_count = reader.IntOr("num_key_value_heads", llama.head_count, kMaxSize);
  llama.vocabulary_size = reader.Int("vocab_size", kMaxSize);
  llama.head_size = reader.IntOr("head_dim", std::max(1, llama.embedding_size / llama.head_count), kMaxSize);
  llama.norm_epsilon = static_cast<float>(reader.FloatOr("rms_norm_eps", 1e-6));
  llama.attention_biases = config.family == "qwen2";
  llama.head_norms = config.family == "qwen3";
  llama.rope_halves = true;
  config.context_length = reader.IntOr("max_position_embeddings", 2048, std::numeric_limits<int32_t>::max());
  config.tied = reader.BoolOr("tie_word_embeddings", false);
  reader.Require(llama.head_count % llama.kv_head_count == 0,
                 "num_key_value_heads does not divide num_attention_heads");
  reader.Require(llama.head_size % 2 == 0, "the size of a head is odd");
  reader.Require(int64_t{llama.head_count} * llama.head_size <= kMaxSize,
                 "num_attention_heads * head_dim is too large");
  RefuseOthers(reader, config);
  if (reader.status().ok()) llama.rope_frequencies = RopeFrequencies(reader, llama.head_size);
  AddEnds(reader, llama.vocabulary_size, &config.end_of_generation);
  if (!reader.status().ok()) return reader.status();
  const absl::Status generation = AddGenerationConfig(folder, config);
  if (!generation.ok()) return generation;
  return absl::StatusOr<HfConfig>(std::move(config));
}

}  // namespace fermata
