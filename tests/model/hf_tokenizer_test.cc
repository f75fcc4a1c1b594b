// Goal: a tokenizer.json gives the ids that the library it was made with gives; what is broken in one is named.
// Method: small tokenizers trained by tests/goldens/tokenizers/generate.py with gpt-2's, qwen2's and llama 3's
// pre-tokenizers, and its ids for awkward texts; then the same files with a part replaced.

#include "engine/model/hf_tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "engine/model/chat_template.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/fakes/golden_file.h"

namespace fermata {
namespace {

using testing::HasSubstr;

constexpr int32_t kVocabulary = 512;  // more than the files have: the rest has no text

std::string Golden(const std::string& name) { return "tests/goldens/tokenizers/" + name; }

std::vector<int32_t> Ids(const std::vector<TokenId>& tokens) {
  std::vector<int32_t> ids;
  for (const TokenId token : tokens) ids.push_back(Value(token));
  return ids;
}

class HfTokenizerTest : public testing::TestWithParam<std::string> {};

TEST_P(HfTokenizerTest, GivesTheLibrarysIds) {
  const auto tokenizer = ReadHfTokenizer(Golden(GetParam()), kVocabulary, {});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocabulary_size(), kVocabulary);
  for (const nlohmann::json& golden : ReadGoldens("tokenizers/" + GetParam() + "/ids.jsonl")) {
    const std::string text = golden["text"];
    const auto tokens = (*tokenizer)->Encode(text, /*parse_special=*/true, /*add_bos=*/false);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(Ids(*tokens), golden["ids"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ((*tokenizer)->Decode(*tokens).value_or("?"), text);
  }
}

INSTANTIATE_TEST_SUITE_P(All, HfTokenizerTest, testing::Values("gpt2", "qwen2", "llama3"),
                         [](const auto& info) { return info.param; });

nlohmann::json Gpt2() {
  std::ifstream file(Golden("gpt2") + "/tokenizer.json");
  return nlohmann::json::parse(file);
}

absl::StatusOr<std::unique_ptr<BpeTokenizer>> Read(const nlohmann::json& json, const nlohmann::json& config = {}) {
  const std::string folder = testing::TempDir() + "/tokenizer";
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/tokenizer.json") << json;
  std::ofstream(folder + "/tokenizer_config.json") << (config.is_null() ? nlohmann::json::object() : config);
  return ReadHfTokenizer(folder, kVocabulary, {});
}

TEST(HfTokenizerFileTest, MergesMayBeStrings) {
  nlohmann::json json = Gpt2();
  const auto pairs = Read(json);
  for (nlohmann::json& merge : json["model"]["merges"]) {
    if (merge.is_array()) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  const auto strings = Read(json);
  ASSERT_TRUE(pairs.ok() && strings.ok()) << strings.status();
  EXPECT_EQ((*pairs)->Encode("hold the note", true, true), (*strings)->Encode("hold the note", true, true));
}

TEST(HfTokenizerFileTest, BosComesFromTheConfiguration) {
  const nlohmann::json config = {{"bos_token", {{"content", "<|one|>"}}}, {"add_bos_token", true}};
  const auto tokenizer = Read(Gpt2(), config);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ASSERT_TRUE((*tokenizer)->bos().has_value());
  const auto tokens = (*tokenizer)->Encode("a", /*parse_special=*/false, /*add_bos=*/true);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_EQ(tokens->size(), 2u);
  EXPECT_EQ((*tokens)[0], *(*tokenizer)->bos());
}

TEST(HfTokenizerFileTest, BrokenPartsAreNamed) {
  nlohmann::json far = Gpt2();
  far["added_tokens"][0]["id"] = kVocabulary;
  EXPECT_EQ(Read(far).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Read(far).status().message()), HasSubstr("tokenizer.json"));
  nlohmann::json merge = Gpt2();
  merge["model"]["merges"][0] = nlohmann::json::array({"a"});
  EXPECT_THAT(std::string(Read(merge).status().message()), HasSubstr("merge"));
  nlohmann::json regex = Gpt2();
  regex["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "."}}}, {"behavior", "Isolated"}};
  EXPECT_EQ(Read(regex).status().code(), absl::StatusCode::kUnimplemented);
  nlohmann::json unigram = Gpt2();
  unigram["model"]["type"] = "Unigram";
  EXPECT_EQ(Read(unigram).status().code(), absl::StatusCode::kUnimplemented);
}

// The layout that Llama 3's model card gives.
TEST(HfTokenizerFileTest, Llama3sChatTemplate) {
  nlohmann::json json = Gpt2();
  int id = 430;
  for (const char* name : {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}) {
    json["added_tokens"].push_back({{"id", id++}, {"content", name}, {"special", true}});
  }
  const auto tokenizer = Read(json);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto chat = RecogniseChatTemplate("{{ '<|start_header_id|>' + role }}{{ '<|eot_id|>' }}");
  ASSERT_TRUE(chat.ok()) << chat.status();
  const auto tokens = (*chat)->Format(
      **tokenizer, std::vector<ChatMessage>{{"system", "Be brief."}, {"user", " Hold <|eot_id|> it. "}});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ((*tokenizer)->Decode(*tokens).value_or("?"),
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHold <|eot_id|> it.<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  // Spelled in a message, a control token is text.
  EXPECT_EQ(std::count(tokens->begin(), tokens->end(), TokenId{433}), 2);
}

}  // namespace
}  // namespace fermata
