#include "engine/model/gguf_model_info.h"

#include <limits>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace fermata {
namespace {

// The type that holds most of the weights.
std::string MainType(const GgufFile& file) {
  std::map<absl::string_view, int64_t> elements;
  for (const GgufTensor& tensor : file.tensors()) elements[InfoOf(tensor.type).name] += tensor.element_count;
  absl::string_view main;
  int64_t most = 0;
  for (const auto& [name, count] : elements) {
    if (count <= most) continue;
    main = name;
    most = count;
  }
  return std::string(main);
}

std::string FileName(const std::string& path) {
  const size_t slash = path.rfind('/');
  return std::string(absl::StripSuffix(slash == std::string::npos ? path : path.substr(slash + 1), ".gguf"));
}

}  // namespace

absl::StatusOr<ModelInfo> DescribeModel(const GgufFile& file, const BpeTokenizer& tokenizer) {
  const absl::StatusOr<std::string> family = file.GetString("general.architecture");
  if (!family.ok()) return family.status();
  const std::string context_key = absl::StrCat(*family, ".context_length");
  const absl::StatusOr<int64_t> context = file.GetInt(context_key);
  if (!context.ok()) return context.status();
  if (*context < 1 || *context > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": key \"", context_key, "\" is ", *context));
  }
  ModelInfo info;
  info.name = file.GetString("general.name").value_or("");
  if (info.name.empty()) info.name = FileName(file.path());
  info.family = *family;
  info.quantization = MainType(file);
  for (const GgufTensor& tensor : file.tensors()) info.parameter_count += tensor.element_count;
  info.context_length = static_cast<int32_t>(*context);
  info.vocabulary_size = tokenizer.vocabulary_size();
  if (tokenizer.bos().has_value()) info.bos_token_ids.push_back(*tokenizer.bos());
  info.end_of_generation_token_ids = tokenizer.end_of_generation();
  return info;
}

}  // namespace fermata
