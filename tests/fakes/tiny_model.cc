#include "tests/fakes/tiny_model.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/byte_level.h"
#include "glog/logging.h"

namespace fermata {
namespace {

constexpr const char* kMerges[kTinyMergeCount] = {"t h", "th e", "i n",  "e r",  "a n", "o n",
                                                  "r e", "h e",  "in g", "an d", "o u", "s t"};

constexpr char kChatMl[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

void Append16(uint16_t value, std::string* out) { out->append(reinterpret_cast<const char*>(&value), 2); }

// `bytes` random bytes.
void AppendRandom(int bytes, std::mt19937& random, std::string* out) {
  for (int i = 0; i < bytes; ++i) out->push_back(static_cast<char>(random() & 0xFF));
}

// A superblock of Q4_K or Q5_K: eight scales from 33 to 40 with minima 32.
void AppendScaledBlock(bool five_bits, uint16_t scale, uint16_t minimum, std::mt19937& random, std::string* out) {
  Append16(five_bits ? scale - (1 << 10) : scale, out);  // half as much for twice as many values
  Append16(minimum, out);
  for (int i = 0; i < 4; ++i) out->push_back(static_cast<char>(0x80 | (33 + i)));
  for (int i = 0; i < 4; ++i) out->push_back(static_cast<char>(0x80 | 32));
  for (int i = 0; i < 4; ++i) out->push_back(static_cast<char>(5 + i));
  AppendRandom(five_bits ? 160 : 128, random, out);
}

uint32_t FloatBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// Values of about `deviation`, in the form of `type`. Quantised ones are random bits with a scale that comes to about
// as much.
void AppendBlock(TensorType type, float deviation, std::mt19937& random, std::string* out) {
  std::normal_distribution<float> normal(0.0f, deviation);
  // A power of two near deviation / 4, for nibbles; a sixteenth of it for bytes.
  const int exponent = static_cast<int>(std::lround(std::log2(deviation / 4)));
  const auto f16_power = [](int power) { return static_cast<uint16_t>((power + 15) << 10); };
  switch (type) {
    case TensorType::kF32: {
      const uint32_t bits = FloatBits(normal(random));
      out->append(reinterpret_cast<const char*>(&bits), sizeof(bits));
      break;
    }
    case TensorType::kBF16:
      Append16(static_cast<uint16_t>(FloatBits(normal(random)) >> 16), out);
      break;
    case TensorType::kF16:
      // Sign and mantissa at random, at one of two powers.
      Append16(static_cast<uint16_t>((random() & 0x83FF) | f16_power(exponent + 1 + static_cast<int>(random() & 1))),
               out);
      break;
    case TensorType::kQ4_0:
      Append16(f16_power(exponent), out);
      AppendRandom(16, random, out);
      break;
    case TensorType::kQ4_1:
      Append16(f16_power(exponent), out);
      Append16(static_cast<uint16_t>(f16_power(exponent + 3) | 0x8000), out);  // minimum: -8 scales
      AppendRandom(16, random, out);
      break;
    case TensorType::kQ8_0:
      Append16(f16_power(exponent - 4), out);
      AppendRandom(32, random, out);
      break;
    case TensorType::kQ6_K:
      AppendRandom(192, random, out);
      for (int i = 0; i < 16; ++i) out->push_back(static_cast<char>(8 + i));
      Append16(f16_power(exponent - 6), out);
      break;
    case TensorType::kQ5_0:
    case TensorType::kQ5_1:
      Append16(f16_power(exponent - 1), out);
      if (type == TensorType::kQ5_1) Append16(static_cast<uint16_t>(f16_power(exponent + 3) | 0x8000), out);
      AppendRandom(20, random, out);
      break;
    case TensorType::kIQ4_NL:
      Append16(f16_power(exponent - 4), out);
      AppendRandom(16, random, out);
      break;
    case TensorType::kQ4_K:
    case TensorType::kQ5_K:
      AppendScaledBlock(type == TensorType::kQ5_K, f16_power(exponent - 5), f16_power(exponent - 2), random, out);
      break;
    default:
      LOG(FATAL) << "no tiny model of type " << InfoOf(type).name;
  }
}

std::string RandomTensor(TensorType type, int64_t elements, float deviation, std::mt19937& random) {
  std::string data;
  for (int64_t i = 0; i < elements; i += InfoOf(type).block_elements) AppendBlock(type, deviation, random, &data);
  return data;
}

void AddVocabulary(GgufWriter& writer) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(EncodeByteLevel(static_cast<uint8_t>(byte)));
  std::vector<std::string> merges;
  for (const char* merge : kMerges) {
    merges.push_back(merge);
    std::string merged = merge;
    merged.erase(merged.find(' '), 1);
    tokens.push_back(merged);
  }
  std::vector<int32_t> kinds(tokens.size(), 1);
  for (const char* control : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    tokens.push_back(control);
    kinds.push_back(3);
  }
  CHECK_EQ(tokens.size(), static_cast<size_t>(kTinyVocabularySize));
  writer.AddString("tokenizer.ggml.model", "gpt2");
  writer.AddString("tokenizer.ggml.pre", "smollm");
  writer.AddStrings("tokenizer.ggml.tokens", tokens);
  writer.AddInts("tokenizer.ggml.token_type", kinds);
  writer.AddStrings("tokenizer.ggml.merges", merges);
  writer.AddInt("tokenizer.ggml.eos_token_id", kTinyImEnd);
  writer.AddBool("tokenizer.ggml.add_bos_token", false);
  writer.AddString("tokenizer.chat_template", kChatMl);
}

}  // namespace

GgufWriter TinyModel(const TinyModelOptions& options) {
  std::mt19937 random(options.seed);
  GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  writer.AddString("general.name", "tiny");
  writer.AddInt("llama.block_count", options.layer_count);
  writer.AddInt("llama.context_length", options.context_length);
  writer.AddInt("llama.embedding_length", options.embedding_size);
  writer.AddInt("llama.feed_forward_length", options.feed_forward_size);
  writer.AddInt("llama.attention.head_count", options.head_count);
  writer.AddInt("llama.attention.head_count_kv", options.kv_head_count);
  writer.AddFloat("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.AddFloat("llama.rope.freq_base", 10000.0f);
  AddVocabulary(writer);

  const int64_t embedding = options.embedding_size;
  const int64_t kv_size = embedding / options.head_count * options.kv_head_count;
  const int64_t feed_forward = options.feed_forward_size;
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t columns) {
    const float deviation = 1.0f / std::sqrt(static_cast<float>(columns));
    writer.AddTensor(name, options.weight_type, {columns, rows},
                     RandomTensor(options.weight_type, rows * columns, deviation, random));
  };
  const auto norm = [&](const std::string& name) {
    writer.AddTensor(name, TensorType::kF32, {embedding}, RandomTensor(TensorType::kF32, embedding, 1.0f, random));
  };
  matrix("token_embd.weight", kTinyVocabularySize, embedding);
  norm("output_norm.weight");
  if (!options.tied) matrix("output.weight", kTinyVocabularySize, embedding);
  for (int32_t i = 0; i < options.layer_count; ++i) {
    const std::string layer = absl::StrCat("blk.", i, ".");
    norm(layer + "attn_norm.weight");
    matrix(layer + "attn_q.weight", embedding, embedding);
    matrix(layer + "attn_k.weight", kv_size, embedding);
    matrix(layer + "attn_v.weight", kv_size, embedding);
    matrix(layer + "attn_output.weight", embedding, embedding);
    norm(layer + "ffn_norm.weight");
    matrix(layer + "ffn_gate.weight", feed_forward, embedding);
    matrix(layer + "ffn_up.weight", feed_forward, embedding);
    matrix(layer + "ffn_down.weight", embedding, feed_forward);
  }
  return writer;
}

std::string WriteTinyModel(const TinyModelOptions& options) {
  return WriteTestFile(absl::StrCat("tiny-", InfoOf(options.weight_type).name, "-", options.seed, ".gguf"),
                       TinyModel(options).Finish());
}

}  // namespace fermata
