// Measures the CUDA back end: what memory and products give, single operations, and whole forward passes of a model of
// made-up weights (a token drawn for each stream on the device).
//
//   bazel run --config=opt --config=cuda //tools/bench/gpu:gpu_bench -- --shape=llama-8b
//
// Prints one JSON object a line; times are medians of --rounds rounds by the host's clock, each round ended by waiting
// for the device. --shape=tiny --backend=cpu runs the same here, to try the program.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "engine/model/llama_config.h"
#include "engine/model/llama_weights.h"
#include "engine/model/transformer.h"
#include "glog/logging.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "tools/bench/gpu/repeated_weights.h"

ABSL_FLAG(std::string, shape, "llama-8b", "llama-8b or tiny");
ABSL_FLAG(std::string, backend, "cuda", "cuda or cpu");
ABSL_FLAG(bool, batch_invariant, false, "the back end's batch-invariant mode");
ABSL_FLAG(bool, hopper_attention, true, "prefill by Hopper's own means");
ABSL_FLAG(bool, warpgroup_products, true, "products of some dozens of rows by own kernels, too");
ABSL_FLAG(bool, fused_layers, true, "all between two attentions in one kernel, where that is faster");
ABSL_FLAG(int32_t, pieces_per_place, 1, "how finely attention of few queries is cut");
ABSL_FLAG(bool, tune, true, "have products measured before");
ABSL_FLAG(bool, products, true, "measure the products alone, too");
ABSL_FLAG(bool, record_steps, true, "steps of decode as CUDA graphs");
ABSL_FLAG(std::vector<std::string>, streams, {}, "of decodes, those of so many streams alone");
ABSL_FLAG(int32_t, rounds, 21, "how often each is measured");

namespace fermata {
namespace {

using Products = std::vector<kernels::Backend::Product>;
constexpr int32_t kBlockTokens = 16;

template <typename T>
T Must(absl::StatusOr<T> value) {
  CHECK(value.ok()) << value.status();
  return *std::move(value);
}

// One decode to measure.
struct DecodeCase {
  int32_t streams;
  int32_t context;
};

struct Sizes {
  LlamaConfig model;
  int32_t max_rows;
  int32_t block_count;
  std::vector<DecodeCase> decodes;
  std::vector<int32_t> prefills;
  std::vector<int32_t> product_rows;
  int64_t add_elements;
};

Sizes SizesOf(const std::string& shape) {
  Sizes sizes;
  LlamaConfig& model = sizes.model;
  model.norm_epsilon = 1e-5f;
  if (shape == "tiny") {
    model.layer_count = 2;
    model.embedding_size = 256;
    model.head_count = 4;
    model.kv_head_count = 2;
    model.head_size = 64;
    model.feed_forward_size = 512;
    model.vocabulary_size = 1000;
    sizes = {model, 64, 64, {{1, 100}, {4, 60}}, {64}, {1, 16}, 1 << 16};
  } else {
    model.layer_count = 32;
    model.embedding_size = 4096;
    model.head_count = 32;
    model.kv_head_count = 8;
    model.head_size = 128;
    model.feed_forward_size = 14336;
    model.vocabulary_size = 128256;
    sizes = {model,
             8192,
             512 * 736 / kBlockTokens,
             {{1, 384}, {1, 8000}, {8, 1230}, {16, 1152}, {64, 1230}, {128, 1230}, {256, 1230}, {512, 720}},
             {512, 2048, 8000},
             {1, 4, 8, 16, 64, 128, 256, 512, 2048, 8192},
             int64_t{1} << 28};
  }
  for (int32_t i = 0; i < sizes.model.head_size / 2; ++i) {
    sizes.model.rope_frequencies.push_back(std::pow(500000.0f, -2.0f * i / sizes.model.head_size));
  }
  return sizes;
}

class Bench {
 public:
  // `cuda` is the back end if it is one of CUDA.
  Bench(Sizes sizes, kernels::Backend& backend, const kernels::CudaBackend* cuda)
      : sizes_(std::move(sizes)), backend_(backend), cuda_(cuda) {}

  void Load() {
    const auto begin = std::chrono::steady_clock::now();
    RepeatedWeights source;
    weights_ = Must(LoadLlamaWeights(source, config(), backend_));
    CHECK(backend_.Synchronize().ok());
    std::printf("{\"bench\":\"load\",\"seconds\":%.2f}\n",
                std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    int32_t outputs = 1;
    for (const DecodeCase& decode : sizes_.decodes) outputs = std::max(outputs, decode.streams);
    transformer_ = Must(Transformer::Create(config(), weights_, backend_, sizes_.max_rows, outputs));
    const absl::Status kv = backend_.AllocateKv(
        {sizes_.block_count, kBlockTokens, config().layer_count, config().kv_head_count, config().head_size});
    CHECK(kv.ok()) << kv;
    const auto untuned = std::chrono::steady_clock::now();
    if (absl::GetFlag(FLAGS_tune)) CHECK(transformer_->Tune().ok());
    std::printf("{\"bench\":\"tune\",\"seconds\":%.2f}\n",
                std::chrono::duration<double>(std::chrono::steady_clock::now() - untuned).count());
    for (int32_t i = 0; i < sizes_.block_count; ++i) blocks_.push_back(i);
    std::shuffle(blocks_.begin(), blocks_.end(), std::mt19937(7));
    FillCache();
  }

  // Two reads and a write of each element: what memory gives.
  void Ceiling() {
    const auto x = Must(backend_.Allocate(sizes_.add_elements));
    const auto y = Must(backend_.Allocate(sizes_.add_elements));
    const double seconds = Median([&] { backend_.Add(*y, sizes_.add_elements, *x); });
    std::printf("{\"bench\":\"add\",\"us\":%.1f,\"tb_per_s\":%.3f}\n", seconds * 1e6,
                3.0 * backend_.kv_element_bytes() * static_cast<double>(sizes_.add_elements) / seconds / 1e12);
  }

  // The products of one layer after the other, so that no cache holds weights.
  void MeasureProducts() {
    const int64_t widest = std::max(config().feed_forward_size, config().embedding_size);
    const auto x = Random(sizes_.max_rows * widest);
    const auto a = Must(backend_.Allocate(sizes_.max_rows * widest));
    const auto qkv = Must(backend_.AllocateTogether(sizes_.max_rows, {query_size(), kv_size(), kv_size()}));
    const auto gate_up =
        Must(backend_.AllocateTogether(sizes_.max_rows, {config().feed_forward_size, config().feed_forward_size}));
    for (const int32_t rows : sizes_.product_rows) {
      Product("qkv", rows, *x, [&](const LlamaLayer& l) {
        return Products{{l.query.get(), qkv[0].get()}, {l.key.get(), qkv[1].get()}, {l.value.get(), qkv[2].get()}};
      });
      Product("o", rows, *x, [&](const LlamaLayer& l) { return Products{{l.attention_output.get(), a.get()}}; });
      Product("gate_up_swiglu", rows, *x, [&](const LlamaLayer& l) {
        return Products{{l.gate.get(), gate_up[0].get()}, {l.up.get(), gate_up[1].get()}};
      });
      // Its input lies in rows of gates, as in a step.
      Product("down", rows, *gate_up[0], [&](const LlamaLayer& l) { return Products{{l.down.get(), a.get()}}; });
    }
  }

  void Decodes() {
    const std::vector<std::string> asked = absl::GetFlag(FLAGS_streams);
    for (const DecodeCase& decode : sizes_.decodes) {
      if (!asked.empty() && std::count(asked.begin(), asked.end(), absl::StrCat(decode.streams)) == 0) continue;
      const std::vector<kernels::Segment> segments = DecodeSegments(decode);
      std::vector<int32_t> tokens(decode.streams, 1), outputs;
      for (int32_t i = 0; i < decode.streams; ++i) outputs.push_back(i);
      const double attention = AttentionSeconds(segments, decode.streams);
      const double kv_bytes = 2.0 * decode.streams * decode.context * config().kv_head_count * config().head_size *
                              backend_.kv_element_bytes();
      const double step = Median([&] { Must(transformer_->Forward(tokens, segments, outputs)); });
      const double alone = Median([&] { Must(transformer_->Forward(tokens, segments, {})); });
      double drawn = 0;
      if (backend_.DrawsTokens()) {
        std::vector<kernels::Backend::Draw> draws(decode.streams);
        for (int32_t i = 1; i < decode.streams; i += 2) draws[i] = {0.3, 0.7f};
        drawn = Median([&] { Must(transformer_->Forward(tokens, segments, outputs, draws)); });
      }
      const double on_device = cuda_ != nullptr ? cuda_->LastStepSeconds() : -1;
      std::printf(
          "{\"bench\":\"decode\",\"streams\":%d,\"context\":%d,\"step_ms\":%.3f,\"step_without_logits_ms\":%.3f,"
          "\"step_with_logits_copied_ms\":%.3f,"
          "\"tokens_per_s\":%.1f,\"attention_us\":%.1f,\"attention_tb_per_s\":%.3f,\"on_device_ms\":%.3f}\n",
          decode.streams, decode.context, (drawn > 0 ? drawn : step) * 1e3, alone * 1e3, step * 1e3,
          decode.streams / (drawn > 0 ? drawn : step), attention * 1e6, kv_bytes / attention / 1e12, on_device * 1e3);
    }
  }

  // Blocks of one long context to the host and back, alone and beside a decode; the decode's steps meanwhile.
  void Park() {
    const int32_t count = std::min(8000, config_tokens()) / kBlockTokens;
    const DecodeCase decode = sizes_.decodes.back();
    const int64_t bytes = count * backend_.kv_block_bytes();
    std::shared_ptr<std::byte> host = Must(backend_.AllocateHost(bytes));
    if (host == nullptr) host.reset(new std::byte[bytes], std::default_delete<std::byte[]>());
    std::vector<kernels::Backend::KvBlockCopy> copies;
    for (int32_t i = 0; i < count; ++i) {
      copies.push_back({blocks_[sizes_.block_count - 1 - i], host.get() + i * backend_.kv_block_bytes()});
    }
    const std::vector<kernels::Segment> segments = DecodeSegments({std::min(decode.streams, 64), decode.context});
    const std::vector<int32_t> tokens(segments.size(), 1);
    const auto steps = [&](const std::atomic<bool>& go_on, int32_t least) {
      std::vector<double> seconds;
      while (go_on || static_cast<int32_t>(seconds.size()) < least) {
        const auto begin = std::chrono::steady_clock::now();
        Must(transformer_->Forward(tokens, segments, {}));
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      }
      std::sort(seconds.begin(), seconds.end());
      return std::make_pair(seconds[seconds.size() / 2], seconds[seconds.size() * 99 / 100]);
    };
    const auto park = [&](double* out, double* in) {
      for (double* seconds : {out, in}) {
        const auto begin = std::chrono::steady_clock::now();
        CHECK((seconds == out ? backend_.CopyKvToHost(copies) : backend_.CopyKvFromHost(copies)).ok());
        *seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      }
    };
    double out[2], in[2];
    park(&out[0], &in[0]);
    park(&out[0], &in[0]);
    const auto alone = steps(false, absl::GetFlag(FLAGS_rounds));
    std::atomic<bool> parking = true;
    std::thread mover([&] {
      for (int i = 0; i < 8; ++i) park(&out[1], &in[1]);
      parking = false;
    });
    const auto beside = steps(parking, absl::GetFlag(FLAGS_rounds));
    mover.join();
    std::printf(
        "{\"bench\":\"park\",\"mb\":%.0f,\"to_host_ms\":%.2f,\"from_host_ms\":%.2f,\"to_host_beside_ms\":%.2f,"
        "\"from_host_beside_ms\":%.2f,\"streams\":%d,\"step_ms\":%.3f,\"step_p99_ms\":%.3f,\"step_beside_ms\":%.3f,"
        "\"step_beside_p99_ms\":%.3f}\n",
        static_cast<double>(bytes) / 1e6, out[0] * 1e3, in[0] * 1e3, out[1] * 1e3, in[1] * 1e3,
        static_cast<int32_t>(tokens.size()), alone.first * 1e3, alone.second * 1e3, beside.first * 1e3,
        beside.second * 1e3);
  }

  void Prefills() {
    for (const int32_t rows : sizes_.prefills) {
      const std::vector<kernels::Segment> segments = {{0, rows, 0, blocks_.data()}};
      std::vector<int32_t> tokens(rows);
      for (int32_t i = 0; i < rows; ++i) tokens[i] = i * 7 % config().vocabulary_size;
      const double attention = AttentionSeconds(segments, rows);
      const double operations = 2.0 * rows * rows * config().head_count * config().head_size;  // half is beyond
      const double step = Median([&] { Must(transformer_->Forward(tokens, segments, {rows - 1})); });
      std::printf(
          "{\"bench\":\"prefill\",\"tokens\":%d,\"ms\":%.3f,\"tokens_per_s\":%.1f,\"attention_us\":%.1f,"
          "\"attention_tflop_per_s\":%.1f}\n",
          rows, step * 1e3, rows / step, attention * 1e6, operations / attention / 1e12);
    }
  }

 private:
  const LlamaConfig& config() const { return sizes_.model; }
  int32_t config_tokens() const { return sizes_.block_count * kBlockTokens; }
  int64_t query_size() const { return int64_t{config().head_count} * config().head_size; }
  int64_t kv_size() const { return int64_t{config().kv_head_count} * config().head_size; }

  // Seconds of `work`, which is asked for and then waited for.
  double Median(const std::function<void()>& work) {
    std::vector<double> seconds;
    for (int round = -2; round < absl::GetFlag(FLAGS_rounds); ++round) {
      CHECK(backend_.Synchronize().ok());
      const auto begin = std::chrono::steady_clock::now();
      work();
      const absl::Status status = backend_.Synchronize();
      CHECK(status.ok()) << status;
      if (round >= 0) {
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      }
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
  }

  // Random elements: rows of the token embedding.
  std::unique_ptr<kernels::Buffer> Random(int64_t count) {
    const int64_t columns = config().embedding_size;
    const int64_t rows = (count + columns - 1) / columns;
    auto buffer = Must(backend_.Allocate(rows * columns));
    std::vector<int32_t> tokens(rows);
    for (int64_t i = 0; i < rows; ++i) tokens[i] = static_cast<int32_t>(i % config().vocabulary_size);
    backend_.BeginStep({});
    backend_.Embed(*weights_.token_embedding, tokens, *buffer);
    CHECK(backend_.Synchronize().ok());
    return buffer;
  }

  void FillCache() {
    const auto q = Random(sizes_.max_rows * query_size());
    const auto k = Random(sizes_.max_rows * kv_size());
    const int32_t blocks_at_once = sizes_.max_rows / kBlockTokens;
    for (int32_t first = 0; first < sizes_.block_count; first += blocks_at_once) {
      const int32_t count = std::min(blocks_at_once, sizes_.block_count - first);
      const std::vector<kernels::Segment> segments = {{0, count * kBlockTokens, 0, blocks_.data() + first}};
      backend_.BeginStep(segments);
      for (int32_t layer = 0; layer < config().layer_count; ++layer) {
        backend_.RopeAndStore(layer, config().head_count, *q, *k, *k);
      }
      CHECK(backend_.Synchronize().ok());
    }
  }

  std::vector<kernels::Segment> DecodeSegments(const DecodeCase& decode) const {
    std::vector<kernels::Segment> segments;
    const int32_t stream_blocks = (decode.context + kBlockTokens) / kBlockTokens;
    CHECK_LE(int64_t{stream_blocks} * decode.streams, sizes_.block_count);
    for (int32_t i = 0; i < decode.streams; ++i) {
      segments.push_back({i, 1, decode.context - 1, blocks_.data() + i * stream_blocks});
    }
    return segments;
  }

  // Of one layer.
  double AttentionSeconds(const std::vector<kernels::Segment>& segments, int32_t rows) {
    const auto q = Random(rows * query_size());
    const auto output = Must(backend_.Allocate(rows * query_size()));
    backend_.BeginStep(segments);
    const double all = Median([&] {
      for (int32_t layer = 0; layer < config().layer_count; ++layer) {
        backend_.Attention(layer, config().head_count, *q, *output);
      }
    });
    return all / config().layer_count;
  }

  void Product(const char* name, int32_t rows, const kernels::Buffer& x,
               const std::function<Products(const LlamaLayer&)>& products) {
    double elements = 0;
    for (const auto& product : products(weights_.layers[0])) {
      elements += static_cast<double>(product.weights->rows()) * product.weights->columns();
    }
    const double all = Median([&] {
      for (const LlamaLayer& layer : weights_.layers) {
        const Products each = products(layer);
        // Two are a gate and what passes through it.
        each.size() == 2 ? backend_.GatedMatMul(each[0], each[1], x, rows) : backend_.MatMul(each, x, rows);
      }
    });
    const double seconds = all / static_cast<double>(weights_.layers.size());
    std::printf(
        "{\"bench\":\"product\",\"what\":\"%s\",\"rows\":%d,\"us\":%.2f,\"tb_per_s\":%.3f,\"tflop_per_s\":%.1f}\n",
        name, rows, seconds * 1e6, elements * backend_.kv_element_bytes() / seconds / 1e12,
        2.0 * elements * rows / seconds / 1e12);
  }

  const Sizes sizes_;
  kernels::Backend& backend_;
  const kernels::CudaBackend* cuda_;
  LlamaWeights weights_;
  std::unique_ptr<Transformer> transformer_;
  std::vector<int32_t> blocks_;
};

void Run() {
  std::unique_ptr<kernels::Backend> backend;
  const kernels::CudaBackend* known = nullptr;
  if (absl::GetFlag(FLAGS_backend) == "cpu") {
    backend = std::make_unique<kernels::CpuBackend>(kernels::CpuBackend::BestOptions(/*threads=*/2));
  } else {
    auto cuda = Must(kernels::CudaBackend::Create({.batch_invariant = absl::GetFlag(FLAGS_batch_invariant),
                                                   .hopper_attention = absl::GetFlag(FLAGS_hopper_attention),
                                                   .warpgroup_products = absl::GetFlag(FLAGS_warpgroup_products),
                                                   .fused_layers = absl::GetFlag(FLAGS_fused_layers),
                                                   .pieces_per_place = absl::GetFlag(FLAGS_pieces_per_place),
                                                   .record_steps = absl::GetFlag(FLAGS_record_steps),
                                                   .time_steps = true}));
    known = cuda.get();
    backend = std::move(cuda);
  }
  Bench bench(SizesOf(absl::GetFlag(FLAGS_shape)), *backend, known);
  bench.Load();
  bench.Ceiling();
  bench.Decodes();
  bench.Prefills();
  bench.Park();
  if (absl::GetFlag(FLAGS_products)) bench.MeasureProducts();
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  fermata::Run();
}
