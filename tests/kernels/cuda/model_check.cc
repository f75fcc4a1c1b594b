// Goal: a whole model gives the same logits on CUDA as on the exact CPU back end, but for bfloat16's rounding.
// Method: small models of made-up weights; one context in chunks together with another token by token, logits of every
// row compared by |cuda - cpu| / |cpu|.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/dummy_weights.h"
#include "engine/model/llama_config.h"
#include "engine/model/llama_weights.h"
#include "engine/model/transformer.h"
#include "glog/logging.h"
#include "kernels/backend.h"
#include "tests/kernels/cuda/twins.h"

namespace fermata {
namespace {

constexpr int32_t kMaxRows = 160;
constexpr int32_t kBlockTokens = 16;

// bfloat16 rounds to 2^-9 at each of a few dozen operations, whose errors add like random steps.
constexpr double kTolerance = 0.03;

template <typename T>
T Must(absl::StatusOr<T> value) {
  CHECK(value.ok()) << value.status();
  return *std::move(value);
}

LlamaConfig SmallConfig(int32_t head_size, int32_t group) {
  LlamaConfig config;
  config.layer_count = 3;
  config.kv_head_count = 2;
  config.head_count = 2 * group;
  config.head_size = head_size;
  config.embedding_size = 192;
  config.feed_forward_size = 520;
  config.vocabulary_size = 1003;
  config.norm_epsilon = 1e-5f;
  config.attention_biases = group % 2 == 1;
  config.head_norms = group == 4;
  config.rope_halves = group == 2;
  for (int32_t i = 0; i < head_size / 2; ++i) {
    config.rope_frequencies.push_back(std::pow(10000.0f, -2.0f * i / head_size));
  }
  return config;
}

// Logits of all rows of all steps.
std::vector<float> Logits(const LlamaConfig& config, kernels::Backend& backend) {
  DummyWeights source("made up", /*tied=*/false);
  const LlamaWeights weights = Must(LoadLlamaWeights(source, config, backend));
  const auto transformer = Must(Transformer::Create(config, weights, backend, kMaxRows, kMaxRows));
  CHECK(backend.AllocateKv({64, kBlockTokens, config.layer_count, config.kv_head_count, config.head_size}).ok());
  std::vector<int32_t> first_blocks, second_blocks;
  for (int32_t i = 0; i < 30; ++i) {
    first_blocks.push_back(63 - i);
    second_blocks.push_back(i);
  }
  std::vector<float> all;
  int32_t first = 0;
  int32_t second = 0;
  for (const int32_t chunk : {70, 1, 33, 2, 9, 150, 1, 1, 100, 1, 3}) {
    std::vector<int32_t> tokens, outputs;
    for (int32_t i = 0; i < chunk; ++i) tokens.push_back((first + i) * 31 % config.vocabulary_size);
    tokens.push_back(second * 17 % config.vocabulary_size);
    for (int32_t row = 0; row <= chunk; ++row) outputs.push_back(row);
    const std::vector<kernels::Segment> segments = {{0, chunk, first, first_blocks.data()},
                                                    {chunk, 1, second, second_blocks.data()}};
    const absl::Span<const float> logits = Must(transformer->Forward(tokens, segments, outputs));
    all.insert(all.end(), logits.begin(), logits.end());
    first += chunk;
    ++second;
  }
  return all;
}

// The logits of every row of one context, which is computed in chunks as `random` has it, with other contexts beside
// it.
std::vector<float> LogitsInCompany(const LlamaConfig& config, Transformer& transformer, int32_t length,
                                   std::mt19937& random) {
  std::vector<float> all;
  std::vector<int32_t> blocks(64);
  for (int32_t i = 0; i < 64; ++i) blocks[i] = i;
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (int32_t done = 0; done < length;) {
    const int32_t chunk = std::min(static_cast<int32_t>(random() % 3 == 0 ? 1 : 1 + random() % 60), length - done);
    const int32_t before = static_cast<int32_t>(random() % 40);
    std::vector<int32_t> tokens, outputs;
    std::vector<kernels::Segment> segments;
    // One other prompt in front, and one token of another after it.
    for (int32_t i = 0; i < before; ++i) tokens.push_back(static_cast<int32_t>(random() % config.vocabulary_size));
    if (before > 0) segments.push_back({0, before, 0, blocks.data() + 40});
    segments.push_back({before, chunk, done, blocks.data()});
    for (int32_t i = 0; i < chunk; ++i) {
      tokens.push_back((done + i) * 31 % config.vocabulary_size);
      outputs.push_back(before + i);
    }
    tokens.push_back(static_cast<int32_t>(random() % config.vocabulary_size));
    segments.push_back({before + chunk, 1, 0, blocks.data() + 60});
    const absl::Span<const float> logits = Must(transformer.Forward(tokens, segments, outputs));
    all.insert(all.end(), logits.begin(), logits.end());
    done += chunk;
  }
  return all;
}

// The logits of every row of one context that is computed token by token, in steps of as many other contexts as
// `random` has it, in any order: such steps are replayed where the back end keeps them.
std::vector<float> LogitsByDecode(const LlamaConfig& config, Transformer& transformer, int32_t length,
                                  std::mt19937& random) {
  constexpr int32_t kOthers = 8;
  std::vector<float> all;
  std::vector<int32_t> blocks(64), positions(kOthers, 0), order, outputs;
  for (int32_t i = 0; i < 64; ++i) blocks[i] = i;
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (int32_t done = 0; done < length; ++done) {
    order.assign(1, -1);
    for (int32_t other = 0; other < kOthers; ++other) {
      if (random() % 2 == 0 && positions[other] < 4 * kBlockTokens) order.push_back(other);
    }
    std::shuffle(order.begin(), order.end(), random);
    std::vector<int32_t> tokens;
    std::vector<kernels::Segment> segments;
    outputs.clear();
    for (const int32_t which : order) {
      const int32_t row = static_cast<int32_t>(tokens.size());
      outputs.push_back(row);
      if (which < 0) {
        segments.push_back({row, 1, done, blocks.data()});
        tokens.push_back(done * 31 % config.vocabulary_size);
      } else {
        segments.push_back({row, 1, positions[which]++, blocks.data() + 32 + 4 * which});
        tokens.push_back(static_cast<int32_t>(random() % config.vocabulary_size));
      }
    }
    std::shuffle(outputs.begin(), outputs.end(), random);
    const absl::Span<const float> logits = Must(transformer.Forward(tokens, segments, outputs));
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (order[static_cast<size_t>(outputs[i])] >= 0) continue;
      const auto row =
          logits.subspan(i * static_cast<size_t>(config.vocabulary_size), static_cast<size_t>(config.vocabulary_size));
      all.insert(all.end(), row.begin(), row.end());
    }
  }
  return all;
}

// |a - b| / |b|
double RelativeError(const std::vector<float>& actual, const std::vector<float>& expected) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(actual[i]) - expected[i], 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  return actual.size() == expected.size() ? std::sqrt(difference / norm) : 1;
}

// Goal: steps of decode that are kept and replayed give what the CPU gives.
void CheckDecode(kernels::Twins& twins, kernels::Tally& tally) {
  for (const int32_t head_size : {64, 128}) {
    for (const int32_t group : {1, 2, 4}) {
      const LlamaConfig config = SmallConfig(head_size, group);
      std::vector<std::vector<float>> logits;
      for (kernels::Backend* backend :
           {static_cast<kernels::Backend*>(&twins.cpu()), static_cast<kernels::Backend*>(&twins.cuda())}) {
        DummyWeights source("made up", /*tied=*/false);
        const LlamaWeights weights = Must(LoadLlamaWeights(source, config, *backend));
        const auto transformer = Must(Transformer::Create(config, weights, *backend, kMaxRows, kMaxRows));
        CHECK(backend->AllocateKv({64, kBlockTokens, config.layer_count, config.kv_head_count, config.head_size}).ok());
        CHECK(transformer->Tune().ok());
        std::mt19937 random(head_size + group);
        logits.push_back(LogitsByDecode(config, *transformer, 150, random));
      }
      const double error = RelativeError(logits[1], logits[0]);
      std::printf("{\"check\":\"decode\",\"head_size\":%d,\"group\":%d,\"relative_error\":%.5f}\n", head_size, group,
                  error);
      tally.Expect("decode of head size " + std::to_string(head_size) + ", group " + std::to_string(group),
                   error < kTolerance);
    }
  }
}

// Goal: batch-invariant, a context's logits are the same to the bit, however its prefill is cut and whoever is beside.
void CheckInvariance(kernels::Twins& twins, kernels::Tally& tally) {
  std::mt19937 random(std::random_device{}());
  for (const int32_t head_size : {64, 128}) {
    for (const int32_t group : {1, 2, 4}) {
      const LlamaConfig config = SmallConfig(head_size, group);
      kernels::Backend& backend = twins.cuda();
      DummyWeights source("made up", /*tied=*/false);
      const LlamaWeights weights = Must(LoadLlamaWeights(source, config, backend));
      const auto transformer = Must(Transformer::Create(config, weights, backend, kMaxRows, kMaxRows));
      CHECK(backend.AllocateKv({64, kBlockTokens, config.layer_count, config.kv_head_count, config.head_size}).ok());
      CHECK(transformer->Tune().ok());
      const std::vector<float> undisturbed = LogitsInCompany(config, *transformer, 400, random);
      for (int i = 0; i < 5; ++i) {
        tally.Expect("the same logits in company " + std::to_string(i) + ", head size " + std::to_string(head_size) +
                         ", group " + std::to_string(group),
                     undisturbed == LogitsInCompany(config, *transformer, 400, random));
      }
      const std::vector<float> first(undisturbed.begin(), undisturbed.begin() + int64_t{100} * config.vocabulary_size);
      tally.Expect(
          "the same logits token by token, head size " + std::to_string(head_size) + ", group " + std::to_string(group),
          first == LogitsByDecode(config, *transformer, 100, random));
    }
  }
}

// Goal: prefill and decode together give what the CPU gives.
void CheckLogits(kernels::Twins& twins, kernels::Tally& tally) {
  for (const int32_t head_size : {16, 64, 128}) {
    for (const int32_t group : {1, 2, 3, 4, 8}) {
      const LlamaConfig config = SmallConfig(head_size, group);
      const std::vector<float> expected = Logits(config, twins.cpu());
      const std::vector<float> actual = Logits(config, twins.cuda());
      const double error = RelativeError(actual, expected);
      std::printf("{\"check\":\"model\",\"head_size\":%d,\"group\":%d,\"relative_error\":%.5f}\n", head_size, group,
                  error);
      tally.Expect("logits of head size " + std::to_string(head_size) + ", group " + std::to_string(group),
                   error < kTolerance);
    }
  }
}

// Each part has a device state of its own, and all are counted together.
int Run() {
  kernels::Tally tally;
  const std::pair<void (*)(kernels::Twins&, kernels::Tally&), bool> parts[] = {
      {CheckLogits, false}, {CheckDecode, false}, {CheckInvariance, true}};
  for (const auto& [part, batch_invariant] : parts) {
    const std::unique_ptr<kernels::Twins> twins = kernels::Twins::Create({.batch_invariant = batch_invariant});
    if (twins == nullptr) return 0;
    part(*twins, tally);
  }
  return tally.Finish();
}

}  // namespace
}  // namespace fermata

int main() { return fermata::Run(); }
