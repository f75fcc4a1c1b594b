#include "engine/model/hf_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/byte_level.h"
#include "engine/model/json_reader.h"
#include "engine/model/mapped_file.h"

namespace fermata {
namespace {

using Json = nlohmann::json;

// The name of a pre-tokenizer out of {"type": ...}, or UNIMPLEMENTED.
absl::StatusOr<std::string> RecognisePretokenizer(const Json* node) {
  const auto type_of = [](const Json& part) {
    const Json* type = FindField(part, "type");
    return type != nullptr && type->is_string() ? type->get<std::string>() : std::string();
  };
  const auto is_true = [](const Json& part, const char* name, bool otherwise) {
    const Json* value = FindField(part, name);
    return value != nullptr && value->is_boolean() ? value->get<bool>() : otherwise;
  };
  std::vector<Json> parts;
  if (node != nullptr && type_of(*node) == "Sequence") {
    const Json* list = FindField(*node, "pretokenizers");
    if (list != nullptr && list->is_array()) parts.assign(list->begin(), list->end());
  } else if (node != nullptr) {
    parts.push_back(*node);
  }
  std::string name;
  bool digits = false;
  bool byte_level = false;
  bool known = true;
  for (const Json& part : parts) {
    const std::string type = type_of(part);
    known = known && !byte_level;  // nothing follows it
    if (type == "Digits" && is_true(part, "individual_digits", false) && name.empty()) {
      digits = true;
    } else if (type == "Split" && name.empty()) {
      const Json* pattern = FindField(part, "pattern");
      const Json* regex = pattern == nullptr ? nullptr : FindField(*pattern, "Regex");
      const Json* behavior = FindField(part, "behavior");
      known = known && behavior != nullptr && *behavior == "Isolated" && !is_true(part, "invert", false);
      if (regex != nullptr && regex->is_string()) {
        name = std::string(Pretokenizer::NameOfRegex(regex->get_ref<const std::string&>()));
      }
      known = known && !name.empty();
    } else if (type == "ByteLevel" && !is_true(part, "add_prefix_space", true)) {
      byte_level = true;
      if (is_true(part, "use_regex", true)) {
        known = known && name.empty();
        name = "gpt-2";
      }
    } else {
      known = false;
    }
  }
  if (digits) known = known && name == "gpt-2";
  if (known && byte_level && !name.empty()) return digits ? std::string("smollm") : name;
  const std::string text = node == nullptr ? "none" : node->dump(-1, ' ', true, Json::error_handler_t::replace);
  return absl::UnimplementedError(
      absl::StrCat("this pre-tokenizer is not served; gpt-2's, smollm's, llama 3's and qwen2's are: ",
                   absl::string_view(text).substr(0, 300)));
}

// Puts `spelling` at `id`.
absl::Status Place(const std::string& spelling, const Json& id, TokenKind kind, BpeVocabulary* vocabulary) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= vocabulary->tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the id of token \"", absl::CHexEscape(spelling),
                                                   "\" is not in the model's vocabulary of ",
                                                   vocabulary->tokens.size()));
  }
  const size_t index = id.get<uint64_t>();
  vocabulary->tokens[index] = spelling;
  vocabulary->kinds[index] = kind;
  return absl::OkStatus();
}

absl::Status AddMerges(const Json& merges, BpeVocabulary* vocabulary) {
  for (const Json& merge : merges) {
    if (merge.is_string()) {
      vocabulary->merges.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      vocabulary->merges.push_back(
          absl::StrCat(merge[0].get_ref<const std::string&>(), " ", merge[1].get_ref<const std::string&>()));
    } else {
      return absl::InvalidArgumentError("a merge is neither a string nor a pair of strings");
    }
  }
  return absl::OkStatus();
}

absl::Status AddAddedTokens(const Json& added, BpeVocabulary* vocabulary) {
  for (const Json& token : added) {
    const Json* content = FindField(token, "content");
    const Json* id = FindField(token, "id");
    const Json* special = FindField(token, "special");
    if (content == nullptr || !content->is_string() || id == nullptr) {
      return absl::InvalidArgumentError("an added token lacks \"content\" or \"id\"");
    }
    const bool control = special != nullptr && special->is_boolean() && special->get<bool>();
    const absl::Status status =
        Place(content->get<std::string>(), *id, control ? TokenKind::kControl : TokenKind::kUserDefined, vocabulary);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ReadParts(const Json& json, BpeVocabulary* vocabulary) {
  const Json* model = FindField(json, "model");
  const Json* words = model == nullptr ? nullptr : FindField(*model, "vocab");
  const Json* merges = model == nullptr ? nullptr : FindField(*model, "merges");
  const Json* type = model == nullptr ? nullptr : FindField(*model, "type");
  if (type != nullptr && *type != "BPE") return absl::UnimplementedError("the tokenizer is no BPE");
  if (words == nullptr || !words->is_object() || merges == nullptr || !merges->is_array()) {
    return absl::InvalidArgumentError("\"model\" lacks an object \"vocab\" or an array \"merges\"");
  }
  const Json* normalizer = FindField(json, "normalizer");
  const Json* form = normalizer == nullptr ? nullptr : FindField(*normalizer, "type");
  if (normalizer != nullptr && (form == nullptr || *form != "NFC")) {
    return absl::UnimplementedError("the normalizer is not served; none and NFC are");
  }
  const absl::StatusOr<std::string> pretokenizer = RecognisePretokenizer(FindField(json, "pre_tokenizer"));
  if (!pretokenizer.ok()) return pretokenizer.status();
  vocabulary->pretokenizer = *pretokenizer;
  const Json* ignore_merges = FindField(*model, "ignore_merges");
  vocabulary->whole_words_first = ignore_merges != nullptr && ignore_merges->is_boolean() && ignore_merges->get<bool>();
  for (const auto& [word, id] : words->items()) {
    const absl::Status status = Place(word, id, TokenKind::kNormal, vocabulary);
    if (!status.ok()) return status;
  }
  const absl::Status status = AddMerges(*merges, vocabulary);
  if (!status.ok()) return status;
  const Json* added = FindField(json, "added_tokens");
  return added != nullptr && added->is_array() ? AddAddedTokens(*added, vocabulary) : absl::OkStatus();
}

BpeVocabulary EmptyVocabulary(int32_t size, const std::vector<TokenId>& ends) {
  BpeVocabulary vocabulary;
  vocabulary.tokens.resize(size);
  vocabulary.kinds.resize(size, TokenKind::kUnused);
  vocabulary.end_of_generation = ends;
  return vocabulary;
}

// Whether the post-processor puts `bos` before a text: then its JSON says so.
bool PostProcessorAdds(const Json& json, const std::string& bos) {
  const Json* processor = FindField(json, "post_processor");
  if (processor == nullptr) return false;
  return absl::StrContains(processor->dump(-1, ' ', false, Json::error_handler_t::replace), bos);
}

// "bos_token" is a string or an object with "content".
void AddBos(const Json& json, const Json& config, BpeVocabulary* vocabulary) {
  const Json* bos = FindField(config, "bos_token");
  if (bos != nullptr && bos->is_object()) bos = FindField(*bos, "content");
  if (bos == nullptr || !bos->is_string()) return;
  const std::string spelling = bos->get<std::string>();
  if (spelling.empty()) return;
  for (size_t i = 0; i < vocabulary->tokens.size(); ++i) {
    if (vocabulary->tokens[i] == spelling) vocabulary->bos = TokenId{static_cast<int32_t>(i)};
  }
  const Json* add = FindField(config, "add_bos_token");
  vocabulary->add_bos = (add != nullptr && add->is_boolean() && add->get<bool>()) || PostProcessorAdds(json, spelling);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BpeTokenizer>> ReadHfTokenizer(const std::string& folder, int32_t vocabulary_size,
                                                              const std::vector<TokenId>& end_of_generation) {
  const std::string path = absl::StrCat(folder, "/tokenizer.json");
  const absl::StatusOr<Json> json = ReadJsonFile(path);
  if (!json.ok()) return json.status();
  const absl::StatusOr<Json> config = ReadJsonFile(absl::StrCat(folder, "/tokenizer_config.json"));
  if (!config.ok() && !absl::IsNotFound(config.status())) return config.status();
  BpeVocabulary vocabulary = EmptyVocabulary(vocabulary_size, end_of_generation);
  const absl::Status status = ReadParts(*json, &vocabulary);
  if (!status.ok()) return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  if (config.ok()) AddBos(*json, *config, &vocabulary);
  absl::StatusOr<std::unique_ptr<BpeTokenizer>> tokenizer = BpeTokenizer::Create(vocabulary);
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(), absl::StrCat(path, ": ", tokenizer.status().message()));
}

absl::StatusOr<std::unique_ptr<BpeTokenizer>> MakeByteTokenizer(int32_t vocabulary_size,
                                                                const std::vector<TokenId>& end_of_generation) {
  BpeVocabulary vocabulary = EmptyVocabulary(vocabulary_size, end_of_generation);
  for (int32_t byte = 0; byte < std::min(vocabulary_size, 256); ++byte) {
    vocabulary.tokens[byte] = EncodeByteLevel(static_cast<uint8_t>(byte));
    vocabulary.kinds[byte] = TokenKind::kNormal;
  }
  vocabulary.pretokenizer = "gpt-2";
  return BpeTokenizer::Create(vocabulary);
}

std::string ReadHfChatTemplate(const std::string& folder) {
  const absl::StatusOr<std::unique_ptr<MappedFile>> file =
      MappedFile::Open(absl::StrCat(folder, "/chat_template.jinja"));
  if (file.ok()) {
    const absl::Span<const uint8_t> bytes = (*file)->bytes();
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  const absl::StatusOr<Json> config = ReadJsonFile(absl::StrCat(folder, "/tokenizer_config.json"));
  const Json* jinja = config.ok() ? FindField(*config, "chat_template") : nullptr;
  return jinja != nullptr && jinja->is_string() ? jinja->get<std::string>() : std::string();
}

}  // namespace fermata
