// Goal: models of every weight type that is served run, on both paths alike; what is not served is refused by name.
// Method: tiny models with random weights. The fast path is held against the exact one, with what 8-bit activations
// cost.

#include "engine/model/load_model.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/tiny_model.h"
#include "tests/model/model_driver.h"

namespace fermata {
namespace {

using testing::HasSubstr;

std::vector<TokenId> Prompt(int32_t size) {
  std::vector<TokenId> prompt;
  for (int32_t i = 0; i < size; ++i) prompt.push_back(TokenId{(i * 37 + 11) % 256});
  return prompt;
}

DrivenSequence Drive(const std::string& path, CpuKernels kernels, int32_t chunk) {
  ModelDriver driver({.path = path, .kernels = kernels});
  DrivenSequence sequence = driver.Begin(Prompt(40), /*capacity=*/60, /*top=*/20);
  driver.Run(sequence, chunk, /*output_count=*/12);
  return sequence;
}

class WeightTypeTest : public testing::TestWithParam<TensorType> {
 protected:
  static TinyModelOptions Options() {
    TinyModelOptions options;
    options.weight_type = GetParam();
    options.tied = GetParam() != TensorType::kF16;  // both ways get a turn
    if (InfoOf(GetParam()).block_elements == 256) options.embedding_size = options.feed_forward_size = 256;
    return options;
  }
};

TEST_P(WeightTypeTest, ChunksChangeNoBitOnEitherPath) {
  const std::string path = WriteTinyModel(Options());
  for (const CpuKernels kernels : {CpuKernels::kExact, CpuKernels::kFast}) {
    const DrivenSequence whole = Drive(path, kernels, /*chunk=*/256);
    for (const int32_t chunk : {1, 7}) {
      const DrivenSequence cut = Drive(path, kernels, chunk);
      EXPECT_EQ(OutputOf(cut), OutputOf(whole));
      for (size_t n = 0; n < whole.logprobs.size(); ++n) EXPECT_EQ(cut.logprobs[n].top, whole.logprobs[n].top);
    }
  }
}

TEST_P(WeightTypeTest, TheFastPathIsNearTheExactOne) {
  const std::string path = WriteTinyModel(Options());
  const DrivenSequence exact = Drive(path, CpuKernels::kExact, /*chunk=*/256);
  const DrivenSequence fast = Drive(path, CpuKernels::kFast, /*chunk=*/256);
  ASSERT_EQ(exact.logprobs[0].top.size(), 20u);
  const std::map<TokenId, float> expected(exact.logprobs[0].top.begin(), exact.logprobs[0].top.end());
  double error = 0;
  int shared = 0;
  for (const auto& [token, logprob] : fast.logprobs[0].top) {
    const auto it = expected.find(token);
    if (it == expected.end()) continue;
    error += std::fabs(logprob - it->second);
    ++shared;
  }
  // Float weights are multiplied in float32 on both paths; 8-bit activations err by up to 1/254 of a block's largest
  // value, in every product of every layer.
  const bool quantised = InfoOf(GetParam()).block_elements > 1;
  EXPECT_GE(shared, quantised ? 14 : 20);
  EXPECT_LE(error / shared, quantised ? 0.3 : 1e-3);
}

INSTANTIATE_TEST_SUITE_P(All, WeightTypeTest,
                         testing::Values(TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0,
                                         TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ6_K, TensorType::kQ4_K,
                                         TensorType::kQ5_K, TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kIQ4_NL),
                         [](const auto& info) { return std::string(InfoOf(info.param).name); });

absl::Status StatusOf(const GgufWriter& writer) {
  return LoadModel({.path = WriteTestFile("refused.gguf", writer.Finish()), .threads = 1}).status();
}

TEST(LoadModelTest, SaysWhatTheModelIs) {
  const absl::StatusOr<LoadedModel> model = LoadModel({.path = WriteTinyModel({}), .threads = 1});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->info.name, "tiny");
  EXPECT_EQ(model->info.family, "llama");
  EXPECT_EQ(model->info.quantization, "F32");
  EXPECT_EQ(model->info.context_length, 2048);
  EXPECT_EQ(model->info.vocabulary_size, kTinyVocabularySize);
  EXPECT_TRUE(model->info.has_chat_template);
  EXPECT_THAT(model->info.end_of_generation_token_ids,
              testing::ElementsAre(TokenId{kTinyEndOfText}, TokenId{kTinyImEnd}));
  EXPECT_EQ(model->kv_bytes_per_token, 2 * 2 * 2 * 16 * 2);  // layers, K and V, heads, size, bytes
  EXPECT_EQ(model->kv_type, "f16");
}

TEST(LoadModelTest, KvTypesAreNamedOrRefused) {
  const std::string path = WriteTinyModel({});
  for (const auto& [type, bytes] : {std::pair("f32", 4), std::pair("f16", 2), std::pair("bf16", 2)}) {
    const absl::StatusOr<LoadedModel> model = LoadModel({.path = path, .threads = 1, .kv_type = type});
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ(model->kv_type, type);
    EXPECT_EQ(model->kv_bytes_per_token, 2 * 2 * 2 * 16 * bytes);
  }
  EXPECT_EQ(LoadModel({.path = path, .threads = 1, .cpu_kernels = CpuKernels::kExact})->kv_type, "f32");
  EXPECT_EQ(LoadModel({.path = path, .threads = 1, .kv_type = "f8"}).status(),
            absl::InvalidArgumentError("kv_type is \"f8\"; allowed is f16, bf16, f32"));
  EXPECT_EQ(LoadModel({.path = path, .threads = 1, .cpu_kernels = CpuKernels::kExact, .kv_type = "f16"}).status(),
            absl::InvalidArgumentError("kv_type is \"f16\"; the exact kernels keep f32"));
}

TEST(LoadModelTest, MissingAndMisshapenTensorsAreNamed) {
  GgufWriter strange = TinyModel({});
  strange.AddTensor("blk.0.attn_q.bias", TensorType::kF32, {64}, std::string(256, '\0'));
  const absl::Status unknown = StatusOf(strange);
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("blk.0.attn_q.bias"));

  TinyModelOptions options;
  options.layer_count = 1;
  GgufWriter twisted = TinyModel(options);
  twisted.AddTensor("output.weight", TensorType::kF32, {kTinyVocabularySize, 64},
                    std::string(kTinyVocabularySize * 64 * 4, '\0'));
  const absl::Status shape = StatusOf(twisted);
  EXPECT_EQ(shape.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(shape.message()), HasSubstr("\"output.weight\" has shape [271, 64], wanted is [64, 271]"));
}

TEST(LoadModelTest, WeightTypesThatAreNotServedYetAreNamed) {
  GgufWriter model = TinyModel({.embedding_size = 256});
  model.AddTensor("output.weight", TensorType::kQ2_K, {256, kTinyVocabularySize},
                  std::string(kTinyVocabularySize * 84, '\0'));
  const absl::Status status = StatusOf(model);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("Q2_K"));
}

// Header, metadata and tensor table with some bytes changed; what still loads also tokenizes.
TEST(LoadModelTest, ChangedBytesNeverCrash) {
  const std::string bytes = TinyModel({}).Finish();
  const std::string path = testing::TempDir() + "/changed.gguf";
  std::mt19937 random(3);
  int loaded = 0;
  int refused = 0;
  for (int i = 0; i < 400; ++i) {
    std::string changed = bytes;
    const size_t end = i % 4 == 0 ? changed.size() : std::min<size_t>(changed.size(), 6000);
    for (int n = 0; n < 1 + i % 3; ++n) changed[random() % end] = static_cast<char>(random());
    std::ofstream(path, std::ios::binary) << changed;
    absl::StatusOr<LoadedModel> model = LoadModel({.path = path, .threads = 1});
    if (!model.ok()) {
      ++refused;
      EXPECT_FALSE(model.status().message().empty());
      continue;
    }
    ++loaded;
    // Either answer will do.
    model->tokenizer->Encode("a text", /*parse_special=*/true, /*add_bos=*/true).status().IgnoreError();
  }
  EXPECT_GT(refused, 20);
  EXPECT_GT(loaded, 20);
}

TEST(LoadModelTest, RopeScalingTurnsHeadsLess) {
  GgufWriter linear = TinyModel({});
  linear.AddString("llama.rope.scaling.type", "linear");
  linear.AddFloat("llama.rope.scaling.factor", 4.0f);
  EXPECT_TRUE(StatusOf(linear).ok());
  GgufWriter llama3 = TinyModel({});
  llama3.AddTensor("rope_freqs.weight", TensorType::kF32, {8},
                   std::string("\0\0\x80\x40", 4) + std::string(28, '\x40'));
  EXPECT_TRUE(StatusOf(llama3).ok());
  GgufWriter yarn = TinyModel({});
  yarn.AddString("llama.rope.scaling.type", "yarn");
  const absl::Status status = StatusOf(yarn);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("yarn"));

  const std::string plain = WriteTinyModel({});
  const std::string scaled = WriteTestFile("linear.gguf", linear.Finish());
  EXPECT_NE(Drive(plain, CpuKernels::kExact, 256).logprobs[0].top,
            Drive(scaled, CpuKernels::kExact, 256).logprobs[0].top);
}

}  // namespace
}  // namespace fermata
