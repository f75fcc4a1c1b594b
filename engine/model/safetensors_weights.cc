#include "engine/model/safetensors_weights.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/model/json_reader.h"

namespace fermata {
namespace {

constexpr char kWhole[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kOutput[] = "lm_head.weight";

struct Part {
  absl::string_view gguf;
  absl::string_view hf;
};

// Within a layer.
constexpr Part kParts[] = {{"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
                           {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
                           {"attn_q_norm", "self_attn.q_norm"}, {"attn_k_norm", "self_attn.k_norm"},
                           {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
                           {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
                           {"ffn_down", "mlp.down_proj"}};

}  // namespace

std::string HfTensorName(absl::string_view gguf_name) {
  if (gguf_name == "token_embd.weight") return "model.embed_tokens.weight";
  if (gguf_name == "output_norm.weight") return "model.norm.weight";
  if (gguf_name == "output.weight") return kOutput;
  const std::vector<absl::string_view> pieces = absl::StrSplit(gguf_name, '.');
  if (pieces.size() != 4 || pieces[0] != "blk") return "";
  for (const Part& part : kParts) {
    if (part.gguf == pieces[2]) return absl::StrCat("model.layers.", pieces[1], ".", part.hf, ".", pieces[3]);
  }
  return "";
}

absl::StatusOr<std::unique_ptr<SafetensorsWeights>> SafetensorsWeights::Open(const std::string& folder, bool tied) {
  std::unique_ptr<SafetensorsWeights> weights(new SafetensorsWeights(folder, tied));
  absl::Status status = weights->AddFile(kWhole);
  if (absl::IsNotFound(status)) {
    const absl::StatusOr<std::vector<std::string>> shards = weights->ShardNames();
    if (!shards.ok()) return shards.status();
    status = absl::OkStatus();
    for (const std::string& shard : *shards) {
      if (status.ok()) status = weights->AddFile(shard);
    }
  }
  if (!status.ok()) return status;
  return absl::StatusOr<std::unique_ptr<SafetensorsWeights>>(std::move(weights));
}

absl::StatusOr<std::vector<std::string>> SafetensorsWeights::ShardNames() const {
  const std::string path = absl::StrCat(folder_, "/", kIndex);
  const absl::StatusOr<nlohmann::json> index = ReadJsonFile(path);
  if (absl::IsNotFound(index.status())) {
    return absl::NotFoundError(absl::StrCat(folder_, ": there is neither ", kWhole, " nor ", kIndex));
  }
  if (!index.ok()) return index.status();
  const nlohmann::json* map = FindField(*index, "weight_map");
  if (map == nullptr || !map->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": \"weight_map\" is no object"));
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    // Of this folder: no way out of it.
    if (!absl::EndsWith(name, ".safetensors") || absl::StrContains(name, "/")) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor \"", absl::CHexEscape(tensor), "\" is in no .safetensors file of this folder"));
    }
    names.insert(name);
  }
  return std::vector<std::string>(names.begin(), names.end());
}

absl::Status SafetensorsWeights::AddFile(const std::string& name) {
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> file = SafetensorsFile::Open(absl::StrCat(folder_, "/", name));
  if (!file.ok()) return file.status();
  for (const auto& [tensor_name, tensor] : (*file)->tensors()) {
    if (places_.try_emplace(tensor_name, Place{file->get(), &tensor}).second) continue;
    return absl::InvalidArgumentError(
        absl::StrCat((*file)->path(), ": tensor \"", absl::CHexEscape(tensor_name), "\" is in two files"));
  }
  files_.push_back(*std::move(file));
  return absl::OkStatus();
}

bool SafetensorsWeights::Has(absl::string_view name) const {
  const std::string hf_name = HfTensorName(name);
  return !(tied_ && hf_name == kOutput) && places_.contains(hf_name);
}

absl::StatusOr<HostTensor> SafetensorsWeights::Take(absl::string_view name, const std::vector<int64_t>& shape) {
  const std::string hf_name = HfTensorName(name);
  const auto it = places_.find(hf_name);
  if (it == places_.end()) return absl::NotFoundError(absl::StrCat(folder_, ": tensor \"", hf_name, "\" is missing"));
  const SafeTensor& tensor = *it->second.tensor;
  const std::string where = absl::StrCat(it->second.file->path(), ": tensor \"", hf_name, "\" has ");
  if (tensor.shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(where, "shape [", absl::StrJoin(tensor.shape, ", "),
                                                   "], wanted is [", absl::StrJoin(shape, ", "), "]"));
  }
  const std::optional<TensorType> type = ServedTensorType(tensor.type_name);
  if (!type.has_value()) {
    return absl::UnimplementedError(
        absl::StrCat(where, "type ", tensor.type_name, ", which is not served; F32, F16 and BF16 are"));
  }
  taken_.insert(hf_name);
  released_.Took(tensor.data);
  return HostTensor{.type = *type, .shape = shape, .data = tensor.data.data(), .owner = nullptr};
}

std::vector<std::string> SafetensorsWeights::NotTaken() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : places_) {
    // Old files carry rope's frequencies, which follow from the configuration.
    const bool needless = absl::EndsWith(name, "rotary_emb.inv_freq") || (tied_ && name == kOutput);
    if (!needless && !taken_.contains(name)) names.push_back(absl::CHexEscape(name));
  }
  return names;
}

int64_t SafetensorsWeights::element_count() const {
  int64_t count = 0;
  for (const auto& [name, place] : places_) {
    int64_t elements = 1;
    for (const int64_t extent : place.tensor->shape) elements *= extent;
    count += elements;
  }
  return count;
}

std::string SafetensorsWeights::main_type() const {
  std::map<std::string, size_t> bytes;
  for (const auto& [name, place] : places_) bytes[place.tensor->type_name] += place.tensor->data.size();
  std::string main;
  size_t most = 0;
  for (const auto& [type, count] : bytes) {
    if (count > most) main = type;
    most = std::max(most, count);
  }
  return main;
}

}  // namespace fermata
