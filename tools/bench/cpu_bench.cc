// Measures the forward pass on the CPU, through the engine's ModelRunner but without an engine: prefill of one prompt,
// decoding of 1, 8 and 32 streams at once, and, with --depth, of one stream with a long context.
//
//   bazel run --config=opt //tools/bench:cpu_bench -- --model=/path/to/model.gguf --threads=2
//
// Prints one JSON object a line: tokens per second, as the median and the best of --rounds rounds. `weight_gb_per_s` is
// how fast the model's file would have to be read, once a step; cpu_ceilings says what this machine's memory gives.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/model/load_model.h"

ABSL_FLAG(std::string, model, "", "a .gguf file");
ABSL_FLAG(int32_t, threads, 0, "threads; 0: as many as there are cores");
ABSL_FLAG(std::string, kernels, "fast", "fast or exact");
ABSL_FLAG(std::string, instructions, "",
          "plain, avx2, avx-vnni, avx512-vnni or neon-dotprod; empty: the best that there is");
ABSL_FLAG(std::string, kv_type, "", "f16, bf16 or f32; empty: what the kernels keep by default");
ABSL_FLAG(int32_t, prompt, 128, "tokens of context before decoding is timed");
ABSL_FLAG(int32_t, output, 64, "tokens decoded by each stream");
ABSL_FLAG(std::vector<std::string>, streams, std::vector<std::string>({"1", "8", "32"}), "streams decoded at once");
ABSL_FLAG(int32_t, depth, 0, "tokens of context of one more decoding stream; 0: none");
ABSL_FLAG(int32_t, prefill, 512, "tokens of the prompt whose prefill is timed; 0: none");
ABSL_FLAG(int32_t, rounds, 3, "how often each is measured");

namespace fermata {
namespace {

constexpr int32_t kBlockTokens = 16;
constexpr int32_t kMaxStreams = 32;
constexpr int32_t kStepTokens = 512;

struct Stream {
  std::vector<TokenId> context;
  std::vector<BlockId> blocks;
  int32_t computed = 0;
};

// A model, and streams that go through it together.
class Bench {
 public:
  // Room for kMaxStreams of `stream_tokens`, or for one of `depth_tokens`.
  static absl::StatusOr<Bench> Create(const ModelOptions& options, int32_t stream_tokens, int32_t depth_tokens) {
    absl::StatusOr<LoadedModel> model = LoadModel(options);
    if (!model.ok()) return model.status();
    if (std::max(stream_tokens, depth_tokens) > model->info.context_length) {
      return absl::InvalidArgumentError(absl::StrCat("the model's context is ", model->info.context_length, " tokens"));
    }
    const int32_t blocks = std::max(kMaxStreams * (stream_tokens / kBlockTokens + 1), depth_tokens / kBlockTokens + 1);
    absl::StatusOr<std::unique_ptr<ModelRunner>> runner =
        model->make_runner(blocks, kBlockTokens, kStepTokens, kMaxStreams);
    if (!runner.ok()) return runner.status();
    return Bench(*std::move(model), *std::move(runner));
  }

  // Streams with made-up prompts, nothing of them computed, and room for `output_tokens` more.
  std::vector<Stream> Begin(int32_t count, int32_t prompt_tokens, int32_t output_tokens) const {
    const int32_t blocks = (prompt_tokens + output_tokens) / kBlockTokens + 1;
    std::vector<Stream> streams(count);
    int32_t block = 0;
    for (int32_t s = 0; s < count; ++s) {
      for (int32_t i = 0; i < prompt_tokens; ++i) {
        streams[s].context.push_back(TokenId{static_cast<int32_t>((i * 7919LL + s * 104729LL) % vocabulary_size())});
      }
      for (int32_t i = 0; i < blocks; ++i) streams[s].blocks.push_back(BlockId{block++});
    }
    return streams;
  }

  // All that each stream has not computed yet, and a token after it: in one step, or for one stream alone in as many
  // as it takes.
  absl::Status Step(std::vector<Stream>& streams) {
    while (streams.size() == 1 && streams[0].context.size() - streams[0].computed > kStepTokens) {
      if (const absl::Status status = Part(streams[0]); !status.ok()) return status;
    }
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
  Bench(LoadedModel model, std::unique_ptr<ModelRunner> runner) : model_(std::move(model)), runner_(std::move(runner)) {
    sampling_.temperature = 0;
  }

  // The next kStepTokens of a prompt.
  absl::Status Part(Stream& stream) {
    const BatchSlice slice = {.context = stream.context,
                              .prompt_token_count = static_cast<int32_t>(stream.context.size()),
                              .first_position = stream.computed,
                              .token_count = kStepTokens,
                              .blocks = stream.blocks,
                              .sampling = &sampling_};
    stream.computed += kStepTokens;
    return runner_->Run({.step = ++step_, .slices = absl::MakeConstSpan(&slice, 1)}, &output_);
  }

  int32_t vocabulary_size() const { return model_.info.vocabulary_size; }

  LoadedModel model_;
  std::unique_ptr<ModelRunner> runner_;
  SamplingParams sampling_;
  StepOutput output_;
  int64_t step_ = 0;
};

double Seconds(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void Print(const char* what, int32_t streams, int32_t context, std::vector<double> rates, double bytes_per_token) {
  std::sort(rates.begin(), rates.end());
  const double median = rates[rates.size() / 2];
  absl::PrintF(
      "{\"bench\":\"%s\",\"streams\":%d,\"context\":%d,\"tokens_per_s\":%.1f,\"best_tokens_per_s\":%.1f,"
      "\"weight_gb_per_s\":%.1f}\n",
      what, streams, context, median, rates.back(), median * bytes_per_token / 1e9);
  std::fflush(stdout);
}

absl::Status MeasurePrefill(Bench& bench, int32_t tokens, int32_t rounds, double weight_bytes) {
  if (tokens == 0) return absl::OkStatus();
  std::vector<double> rates;
  // The first one, which touches all memory for the first time, does not count; nor does llama-bench's.
  for (int32_t round = -1; round < rounds; ++round) {
    std::vector<Stream> streams = bench.Begin(1, tokens, 1);
    const auto begin = std::chrono::steady_clock::now();
    if (const absl::Status status = bench.Step(streams); !status.ok()) return status;
    if (round >= 0) rates.push_back(tokens / Seconds(begin));
  }
  Print("prefill", 1, tokens, std::move(rates), weight_bytes / tokens);
  return absl::OkStatus();
}

absl::Status MeasureDecode(Bench& bench, int32_t stream_count, int32_t prompt, int32_t output, int32_t rounds,
                           double weight_bytes) {
  std::vector<double> rates;
  for (int32_t round = 0; round < rounds; ++round) {
    std::vector<Stream> streams = bench.Begin(stream_count, prompt, output);
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
  Print("decode", stream_count, prompt, std::move(rates), weight_bytes / stream_count);
  return absl::OkStatus();
}

absl::Status Measure(const ModelOptions& options) {
  const int32_t prompt = absl::GetFlag(FLAGS_prompt);
  const int32_t prefill = absl::GetFlag(FLAGS_prefill);
  const int32_t output = absl::GetFlag(FLAGS_output);
  const int32_t rounds = absl::GetFlag(FLAGS_rounds);
  const int32_t depth = absl::GetFlag(FLAGS_depth);
  if (prompt < 1 || prefill < 0 || prefill > kStepTokens || output < 1 || depth < 0 || rounds < 1) {
    return absl::InvalidArgumentError(absl::StrCat("--prompt, --output and --rounds are at least 1, --prefill is 0 to ",
                                                   kStepTokens, ", --depth at least 0"));
  }
  const auto begin = std::chrono::steady_clock::now();
  absl::StatusOr<Bench> bench = Bench::Create(options, std::max(prefill, prompt + output) + 1, depth + output + 1);
  if (!bench.ok()) return bench.status();
  absl::PrintF("{\"bench\":\"load\",\"load_s\":%.2f}\n", Seconds(begin));
  std::fflush(stdout);
  std::error_code error;
  const double weight_bytes = static_cast<double>(std::filesystem::file_size(options.path, error));
  if (const absl::Status status = MeasurePrefill(*bench, prefill, rounds, weight_bytes); !status.ok()) return status;
  for (const std::string& word : absl::GetFlag(FLAGS_streams)) {
    int32_t streams = 0;
    if (!absl::SimpleAtoi(word, &streams) || streams < 1 || streams > kMaxStreams) {
      return absl::InvalidArgumentError(absl::StrCat("--streams has \"", word, "\"; allowed is 1 to ", kMaxStreams));
    }
    const absl::Status status = MeasureDecode(*bench, streams, prompt, output, rounds, weight_bytes);
    if (!status.ok()) return status;
  }
  return depth > 0 ? MeasureDecode(*bench, 1, depth, output, rounds, weight_bytes) : absl::OkStatus();
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
                        .cpu_instructions = absl::GetFlag(FLAGS_instructions),
                        .kv_type = absl::GetFlag(FLAGS_kv_type)});
  if (status.ok()) return 0;
  absl::FPrintF(stderr, "%s\n", status.ToString());
  return 1;
}
