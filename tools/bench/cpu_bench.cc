// Measures the forward pass on the CPU, through the engine's ModelRunner but without an engine: prefill of one prompt,
// and decoding of 1, 8 and 32 streams at once.
//
//   bazel run --config=opt //tools/bench:cpu_bench -- --model=/path/to/model.gguf --threads=2
//
// Prints one JSON object a line: tokens per second, as the median and the best of --rounds rounds. `weight_gb_per_s` is
// how fast the model's file would have to be read, once a step; the first line says what this machine's memory gives.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/model/load_model.h"

ABSL_FLAG(std::string, model, "", "a .gguf file");
ABSL_FLAG(int32_t, threads, 0, "threads; 0: as many as there are cores");
ABSL_FLAG(std::string, kernels, "fast", "fast or exact");
ABSL_FLAG(std::string, instructions, "", "plain, avx2 or avx512-vnni; empty: the best that there is");
ABSL_FLAG(int32_t, prompt, 128, "tokens of context before decoding is timed");
ABSL_FLAG(int32_t, output, 64, "tokens decoded by each stream");
ABSL_FLAG(int32_t, prefill, 512, "tokens of the prompt whose prefill is timed");
ABSL_FLAG(int32_t, rounds, 3, "how often each is measured");

namespace fermata {
namespace {

constexpr int32_t kBlockTokens = 16;
constexpr int32_t kMaxStreams = 32;

struct Stream {
  std::vector<TokenId> context;
  std::vector<BlockId> blocks;
  int32_t computed = 0;
};

// A model, and streams that go through it together.
class Bench {
 public:
  static absl::StatusOr<Bench> Create(const ModelOptions& options, int32_t stream_tokens) {
    absl::StatusOr<LoadedModel> model = LoadModel(options);
    if (!model.ok()) return model.status();
    const int32_t blocks = stream_tokens / kBlockTokens + 1;
    absl::StatusOr<std::unique_ptr<ModelRunner>> runner =
        model->make_runner(kMaxStreams * blocks, kBlockTokens, /*max_step_tokens=*/512, kMaxStreams);
    if (!runner.ok()) return runner.status();
    return Bench(*std::move(model), *std::move(runner), blocks);
  }

  // Streams with made-up prompts, nothing of them computed.
  std::vector<Stream> Begin(int32_t count, int32_t prompt_tokens) const {
    std::vector<Stream> streams(count);
    int32_t block = 0;
    for (int32_t s = 0; s < count; ++s) {
      for (int32_t i = 0; i < prompt_tokens; ++i) {
        streams[s].context.push_back(TokenId{static_cast<int32_t>((i * 7919LL + s * 104729LL) % vocabulary_size())});
      }
      for (int32_t i = 0; i < blocks_per_stream_; ++i) streams[s].blocks.push_back(BlockId{block++});
    }
    return streams;
  }

  // One step: all that each stream has not computed yet.
  absl::Status Step(std::vector<Stream>& streams) {
    std::vector<BatchSlice> slices;
    for (Stream& stream : streams) {
      const int32_t size = static_cast<int32_t>(stream.context.size());
      slices.push_back({.context = stream.context,
                        .prompt_token_count = size,
                        .first_position = stream.computed,
                        .token_count = size - stream.computed,
                        .blocks = stream.blocks,
                        .sample = true,
                        .sampling = &sampling_});
      stream.computed = size;
    }
    const absl::Status status = runner_->Run({.step = ++step_, .slices = slices}, &output_);
    if (!status.ok()) return status;
    for (const SampledToken& sampled : output_.sampled) {
      if (!sampled.status.ok()) return sampled.status;
      streams[sampled.slice].context.push_back(sampled.token);
    }
    return absl::OkStatus();
  }

 private:
  Bench(LoadedModel model, std::unique_ptr<ModelRunner> runner, int32_t blocks_per_stream)
      : model_(std::move(model)), runner_(std::move(runner)), blocks_per_stream_(blocks_per_stream) {
    sampling_.temperature = 0;
  }

  int32_t vocabulary_size() const { return model_.info.vocabulary_size; }

  LoadedModel model_;
  std::unique_ptr<ModelRunner> runner_;
  int32_t blocks_per_stream_;
  SamplingParams sampling_;
  StepOutput output_;
  int64_t step_ = 0;
};

double Seconds(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Bytes per second of reading memory that no cache holds, with all threads: the ceiling of decoding.
double ReadBandwidth(int32_t threads) {
  constexpr int64_t kWordsPerThread = 16 << 20;
  std::vector<std::vector<uint64_t>> parts(threads, std::vector<uint64_t>(kWordsPerThread, 1));
  std::vector<uint64_t> sums(threads);
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> readers;
    for (int32_t t = 0; t < threads; ++t) {
      readers.emplace_back([&, t] {
        uint64_t lanes[32] = {};
        for (int64_t i = 0; i < kWordsPerThread; i += 32) {
          for (int lane = 0; lane < 32; ++lane) lanes[lane] += parts[t][i + lane];
        }
        for (const uint64_t lane : lanes) sums[t] += lane;
      });
    }
    for (std::thread& reader : readers) reader.join();
    best = std::max(best, static_cast<double>(threads * kWordsPerThread * sizeof(uint64_t)) / Seconds(begin));
  }
  return sums[0] == 0 ? 0 : best;  // used, so that the reading is not left out
}

void Print(const char* what, int32_t streams, std::vector<double> rates, double bytes_per_token) {
  std::sort(rates.begin(), rates.end());
  const double median = rates[rates.size() / 2];
  absl::PrintF(
      "{\"bench\":\"%s\",\"streams\":%d,\"tokens_per_s\":%.1f,\"best_tokens_per_s\":%.1f,\"weight_gb_per_s\":%.1f}\n",
      what, streams, median, rates.back(), median * bytes_per_token / 1e9);
  std::fflush(stdout);
}

absl::Status MeasurePrefill(Bench& bench, int32_t tokens, int32_t rounds, double weight_bytes) {
  std::vector<double> rates;
  for (int32_t round = 0; round < rounds; ++round) {
    std::vector<Stream> streams = bench.Begin(1, tokens);
    const auto begin = std::chrono::steady_clock::now();
    if (const absl::Status status = bench.Step(streams); !status.ok()) return status;
    rates.push_back(tokens / Seconds(begin));
  }
  Print("prefill", 1, std::move(rates), weight_bytes / tokens);
  return absl::OkStatus();
}

absl::Status MeasureDecode(Bench& bench, int32_t stream_count, int32_t prompt, int32_t output, int32_t rounds,
                           double weight_bytes) {
  std::vector<double> rates;
  for (int32_t round = 0; round < rounds; ++round) {
    std::vector<Stream> streams = bench.Begin(stream_count, prompt);
    for (Stream& stream : streams) {
      // Prompts one by one: together they could exceed a step.
      std::vector<Stream> alone = {std::move(stream)};
      if (const absl::Status status = bench.Step(alone); !status.ok()) return status;
      stream = std::move(alone[0]);
    }
    const auto begin = std::chrono::steady_clock::now();
    for (int32_t i = 0; i < output; ++i) {
      if (const absl::Status status = bench.Step(streams); !status.ok()) return status;
    }
    rates.push_back(static_cast<double>(stream_count) * output / Seconds(begin));
  }
  Print("decode", stream_count, std::move(rates), weight_bytes / stream_count);
  return absl::OkStatus();
}

absl::Status Measure(const ModelOptions& options) {
  const int32_t prompt = absl::GetFlag(FLAGS_prompt);
  const int32_t prefill = absl::GetFlag(FLAGS_prefill);
  const int32_t output = absl::GetFlag(FLAGS_output);
  const int32_t rounds = absl::GetFlag(FLAGS_rounds);
  if (prompt < 1 || prompt > 512 || prefill < 1 || prefill > 512 || output < 1 || rounds < 1) {
    return absl::InvalidArgumentError("--prompt and --prefill are 1 to 512, --output and --rounds at least 1");
  }
  const auto begin = std::chrono::steady_clock::now();
  absl::StatusOr<Bench> bench = Bench::Create(options, std::max(prefill, prompt + output) + 1);
  if (!bench.ok()) return bench.status();
  const double load_seconds = Seconds(begin);
  std::error_code error;
  const double weight_bytes = static_cast<double>(std::filesystem::file_size(options.path, error));
  const int32_t threads =
      options.threads > 0 ? options.threads : std::max<int32_t>(1, std::thread::hardware_concurrency());
  absl::PrintF("{\"bench\":\"machine\",\"threads\":%d,\"read_gb_per_s\":%.1f,\"load_s\":%.2f}\n", threads,
               ReadBandwidth(threads) / 1e9, load_seconds);
  std::fflush(stdout);
  if (const absl::Status status = MeasurePrefill(*bench, prefill, rounds, weight_bytes); !status.ok()) return status;
  for (const int32_t streams : {1, 8, kMaxStreams}) {
    const absl::Status status = MeasureDecode(*bench, streams, prompt, output, rounds, weight_bytes);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const std::string kernels = absl::GetFlag(FLAGS_kernels);
  if (kernels != "fast" && kernels != "exact") {
    absl::FPrintF(stderr, "--kernels is fast or exact, not \"%s\"\n", kernels);
    return 2;
  }
  const absl::Status status =
      fermata::Measure({.path = absl::GetFlag(FLAGS_model),
                        .threads = absl::GetFlag(FLAGS_threads),
                        .cpu_kernels = kernels == "exact" ? fermata::CpuKernels::kExact : fermata::CpuKernels::kFast,
                        .cpu_instructions = absl::GetFlag(FLAGS_instructions)});
  if (status.ok()) return 0;
  absl::FPrintF(stderr, "%s\n", status.ToString());
  return 1;
}
