// Goal: the default model's text becomes the tokens it was trained on.
// Method: texts with the tokens that two independent tokenizers agree on; and back.

#include <string>
#include <vector>

#include "engine/model/gguf_tokenizer.h"
#include "gtest/gtest.h"
#include "tests/fakes/default_model.h"
#include "tests/fakes/golden_file.h"

namespace fermata {
namespace {

std::vector<int32_t> Values(const std::vector<TokenId>& tokens) {
  std::vector<int32_t> values;
  for (const TokenId token : tokens) values.push_back(Value(token));
  return values;
}

class TokenizerGoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    if (DefaultModelPath().empty()) GTEST_SKIP() << "FERMATA_MODEL is not set";
    absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(DefaultModelPath());
    ASSERT_TRUE(file.ok()) << file.status();
    absl::StatusOr<std::unique_ptr<BpeTokenizer>> tokenizer = MakeTokenizer(**file);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  std::unique_ptr<BpeTokenizer> tokenizer_;
};

TEST_F(TokenizerGoldenTest, EveryTextHasItsReferenceTokens) {
  const std::vector<nlohmann::json> goldens = ReadGoldens("smollm2-tokenizer.jsonl");
  EXPECT_EQ(goldens.size(), 40u);
  for (const nlohmann::json& golden : goldens) {
    const std::string text = golden["text"];
    const absl::StatusOr<std::vector<TokenId>> tokens =
        tokenizer_->Encode(text, /*parse_special=*/true, /*add_bos=*/true);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(Values(*tokens), golden["token_ids"].get<std::vector<int32_t>>()) << text;
    const absl::StatusOr<std::string> back = tokenizer_->Decode(*tokens);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, text);
  }
}

TEST_F(TokenizerGoldenTest, PromptsAndOutputsOfTheModelGoldensAgreeToo) {
  for (const nlohmann::json& golden : ReadGoldens("smollm2-135m-q4_1.jsonl")) {
    const std::string prompt = golden["prompt"];
    const absl::StatusOr<std::vector<TokenId>> tokens =
        tokenizer_->Encode(prompt, /*parse_special=*/true, /*add_bos=*/true);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(Values(*tokens), golden["prompt_token_ids"].get<std::vector<int32_t>>()) << prompt;
    std::vector<TokenId> output;
    for (const int32_t value : golden["output_token_ids"]) output.push_back(TokenId{value});
    const absl::StatusOr<std::string> text = tokenizer_->Decode(output);
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(*text, golden["output_text"].get<std::string>());
  }
}

TEST_F(TokenizerGoldenTest, ControlTokensEndGenerationsAndAddNoText) {
  const absl::StatusOr<std::vector<TokenId>> tokens =
      tokenizer_->Encode("<|im_end|>", /*parse_special=*/true, /*add_bos=*/true);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_EQ(tokens->size(), 1u);
  EXPECT_TRUE(tokenizer_->IsEndOfGeneration((*tokens)[0]));
  EXPECT_EQ(tokenizer_->Bytes((*tokens)[0]), "");
}

}  // namespace
}  // namespace fermata
