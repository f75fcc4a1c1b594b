// Goal: qwen2 (biases), qwen3 (norms over heads) and llama with Llama 3's rope scaling compute what a reference that
// shares no code computes.
// Method: tiny safetensors folders and float64 logits, both of tests/goldens/families/generate.py, at every position of
// one text; whole and in chunks; as BF16, F16 and F32.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/hf_config.h"
#include "engine/model/safetensors_weights.h"
#include "gtest/gtest.h"
#include "tests/fakes/gguf_writer.h"
#include "tests/model/logits_driver.h"

namespace fermata {
namespace {

class FamilyGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  static std::string Folder() { return "tests/goldens/families/" + GetParam(); }

  // The largest difference of a logit of the model at `path` to the reference's.
  static double Difference(const std::string& path, bool exact, int32_t chunk,
                           kernels::KvType kv_type = kernels::KvType::kF32) {
    const std::string folder = Folder();
    kernels::CpuBackendOptions options = kernels::CpuBackend::BestOptions(/*threads=*/2);
    options.exact = exact;
    options.kv_type = kv_type;
    LogitsDriver driver(path, options);
    ForcedSequence sequence = driver.Begin(ReadNumbers<int32_t>(folder + "/tokens.bin"), /*first_output=*/0);
    driver.Run(sequence, chunk);
    const std::vector<float> expected = ReadNumbers<float>(folder + "/logits.bin");
    EXPECT_FALSE(expected.empty()) << "no logits in " << folder;
    std::vector<float> computed;
    for (const std::vector<float>& row : sequence.logits) computed.insert(computed.end(), row.begin(), row.end());
    EXPECT_EQ(computed.size(), expected.size());
    double difference = 0;
    for (size_t i = 0; i < std::min(computed.size(), expected.size()); ++i) {
      difference = std::fmax(difference, std::fabs(computed[i] - expected[i]));
    }
    return difference;
  }
};

TEST_P(FamilyGoldenTest, TheExactPathGivesTheReferencesLogits) {
  EXPECT_LT(Difference(Folder(), /*exact=*/true, /*chunk=*/256), 1e-4);
  EXPECT_LT(Difference(Folder(), /*exact=*/true, /*chunk=*/3), 1e-4);
}

// Float weights are multiplied in float32 on this path too.
TEST_P(FamilyGoldenTest, TheFastPathIsAsNear) {
  EXPECT_LT(Difference(Folder(), /*exact=*/false, /*chunk=*/256), 1e-3);
  EXPECT_LT(Difference(Folder(), /*exact=*/false, /*chunk=*/1), 1e-3);
}

// Nothing but keys and values is rounded: by at most 2^-12 of each in f16 and 2^-9 in bf16, in each of two layers, in
// keys and in values; the logits are of order 1.
TEST_P(FamilyGoldenTest, KvOfSixteenBitsCostsWhatItsRoundingDoes) {
  for (const int32_t chunk : {256, 1}) {
    EXPECT_LT(Difference(Folder(), /*exact=*/false, chunk, kernels::KvType::kF16), 1e-3 + 16 * std::ldexp(1, -12));
    EXPECT_LT(Difference(Folder(), /*exact=*/false, chunk, kernels::KvType::kBF16), 1e-3 + 16 * std::ldexp(1, -9));
  }
}

// The same weights in a GGUF file, as converters write those of the qwen families: under other names, rows as they
// were.
std::string AsGguf(const std::string& folder, const std::string& family) {
  const HfConfig config = *ReadHfConfig(folder);
  const LlamaConfig& llama = config.llama;
  const std::unique_ptr<SafetensorsWeights> source = *SafetensorsWeights::Open(folder, config.tied);
  GgufWriter writer;
  const auto add_int = [&](const char* key, int32_t value) { writer.AddInt(family + "." + key, value); };
  writer.AddString("general.architecture", family);
  add_int("block_count", llama.layer_count);
  add_int("context_length", config.context_length);
  add_int("embedding_length", llama.embedding_size);
  add_int("feed_forward_length", llama.feed_forward_size);
  add_int("attention.head_count", llama.head_count);
  add_int("attention.head_count_kv", llama.kv_head_count);
  add_int("attention.key_length", llama.head_size);
  add_int("attention.value_length", llama.head_size);
  writer.AddFloat(family + ".attention.layer_norm_rms_epsilon", llama.norm_epsilon);
  writer.AddFloat(family + ".rope.freq_base", 1000000.0f);
  std::vector<std::string> tokens = {"a", "b", "ab"};
  for (int32_t i = 3; i < llama.vocabulary_size; ++i) tokens.push_back("t" + std::to_string(i));
  writer.AddString("tokenizer.ggml.model", "gpt2");
  writer.AddString("tokenizer.ggml.pre", "qwen2");
  writer.AddStrings("tokenizer.ggml.tokens", tokens);
  writer.AddStrings("tokenizer.ggml.merges", {"a b"});
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    const HostTensor tensor = *source->Take(name, shape);
    int64_t bytes = InfoOf(tensor.type).block_bytes;
    for (const int64_t extent : shape) bytes *= extent;
    writer.AddTensor(name, tensor.type, std::vector<int64_t>(shape.rbegin(), shape.rend()),
                     std::string(reinterpret_cast<const char*>(tensor.data), bytes));
  };
  const int64_t embedding = llama.embedding_size;
  const int64_t query = int64_t{llama.head_count} * llama.head_size;
  const int64_t key = int64_t{llama.kv_head_count} * llama.head_size;
  add("token_embd.weight", {llama.vocabulary_size, embedding});
  add("output_norm.weight", {embedding});
  if (!config.tied) add("output.weight", {llama.vocabulary_size, embedding});
  for (int32_t i = 0; i < llama.layer_count; ++i) {
    const std::string layer = "blk." + std::to_string(i) + ".";
    add(layer + "attn_norm.weight", {embedding});
    add(layer + "ffn_norm.weight", {embedding});
    add(layer + "attn_q.weight", {query, embedding});
    add(layer + "attn_k.weight", {key, embedding});
    add(layer + "attn_v.weight", {key, embedding});
    add(layer + "attn_output.weight", {embedding, query});
    add(layer + "ffn_gate.weight", {llama.feed_forward_size, embedding});
    add(layer + "ffn_up.weight", {llama.feed_forward_size, embedding});
    add(layer + "ffn_down.weight", {embedding, llama.feed_forward_size});
    if (llama.attention_biases) {
      add(layer + "attn_q.bias", {query});
      add(layer + "attn_k.bias", {key});
      add(layer + "attn_v.bias", {key});
    }
    if (llama.head_norms) {
      add(layer + "attn_q_norm.weight", {llama.head_size});
      add(layer + "attn_k_norm.weight", {llama.head_size});
    }
  }
  return WriteTestFile(family + ".gguf", writer.Finish());
}

TEST_P(FamilyGoldenTest, AGgufFileGivesThemToo) {
  // Files of the llama family hold rows in another order.
  if (GetParam() == "llama3") GTEST_SKIP();
  EXPECT_LT(Difference(AsGguf(Folder(), GetParam()), /*exact=*/true, /*chunk=*/256), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(All, FamilyGoldenTest, testing::Values("qwen2", "qwen3", "llama3"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fermata
