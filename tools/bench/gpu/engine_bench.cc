// Measures the engine as a whole in one process: scheduler, threads and back end, with made-up weights of a model's
// shape, loaded as --load=dummy does.
//
//   bazel run --config=opt --config=cuda //tools/bench/gpu:engine_bench -- --workload=sharegpt_lengths.csv
//
// Prints one JSON object a line. --shape=tiny --backend=cpu runs every figure here, to try the program: then aims in
// milliseconds and tokens a second are left out. Where a workload is not given its figure is left out too.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "engine/model/load_model.h"
#include "engine/runtime/engine_sizing.h"
#include "glog/logging.h"
#include "tools/bench/gpu/engine_figures.h"
#include "tools/bench/gpu/measured_runner.h"

ABSL_FLAG(std::string, shape, "llama-8b", "llama-8b or tiny");
ABSL_FLAG(std::string, backend, "cuda", "cuda or cpu");
ABSL_FLAG(bool, batch_invariant, false, "the back end's batch-invariant mode");
ABSL_FLAG(std::string, workload, "", "a file with lines of PROMPT,OUTPUT in tokens, after one with names");
ABSL_FLAG(int32_t, requests, 1500, "of the workload, from its beginning");
ABSL_FLAG(int32_t, step_tokens, 1024, "tokens of a step, at most");
ABSL_FLAG(double, memory_fraction, 0.9, "of the device's memory, for weights and KV");
ABSL_FLAG(std::vector<std::string>, figures,
          std::vector<std::string>({"decode", "streams", "workload", "interactive", "pause", "park", "swaps"}),
          "which");
ABSL_FLAG(std::string, write_config, "",
          "writes config.json into this folder, for a server with --load=dummy, and ends");

namespace fermata {
namespace {

constexpr int32_t kBlockTokens = 16;
constexpr int64_t kCpuKvBytes = int64_t{256} << 20;

constexpr char kLlama8b[] = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
"num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "max_position_embeddings": 131072,
"vocab_size": 128256, "tie_word_embeddings": false})";

constexpr char kTiny[] = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
"num_key_value_heads": 2, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "max_position_embeddings": 32768,
"vocab_size": 17000, "tie_word_embeddings": false})";

bool IsTiny() { return absl::GetFlag(FLAGS_shape) == "tiny"; }

FigureSizes Sizes() {
  FigureSizes sizes;
  if (IsTiny()) {
    sizes.decodes = {{1, 40, 20, 0}, {4, 40, 20, 0}};
    sizes.slots = 4;
    sizes.context = 64;
    sizes.long_context = 400;
    sizes.arrivals = 10;
    sizes.pauses = 10;
    sizes.parks = 2;
    sizes.swap_span_s = 0.5;
    sizes.workload_slots = 8;
    sizes.stream_output = 64;
    sizes.fill_step_tokens = 1024;
  } else {
    sizes.decodes = {{1, 256, 200, 4.1}, {64, 1180, 100, 7.2}, {256, 1100, 60, 16.8}, {512, 640, 40, 23.2}};
    sizes.absolute_aims = true;
    sizes.workload_per_second = 13500;
  }
  sizes.workload_requests = absl::GetFlag(FLAGS_requests);
  return sizes;
}

std::string WriteConfig(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << (IsTiny() ? kTiny : kLlama8b);
  return folder;
}

std::vector<Request> ReadWorkload(const std::string& path) {
  std::ifstream file(path);
  CHECK(file.is_open()) << path << " cannot be read";
  std::vector<Request> requests;
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    const std::vector<std::string> parts = absl::StrSplit(line, ',');
    Request request = {};
    CHECK(parts.size() == 2 && absl::SimpleAtoi(parts[0], &request.prompt) &&
          absl::SimpleAtoi(parts[1], &request.output))
        << path << ": \"" << line << "\" is not two numbers";
    requests.push_back(request);
  }
  return requests;
}

// A folder of this process alone.
class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "engine_bench.XXXXXX").string();
    CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Scratch() { std::filesystem::remove_all(path_); }

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The pool as the server makes it, with room for the step's buffers left.
EngineOptions BaseOptions(const LoadedModel& model, int32_t max_rows) {
  EngineOptions options;
  options.max_running = max_rows;
  options.block_tokens = kBlockTokens;
  options.context_tokens = 0;
  options.step_tokens = absl::GetFlag(FLAGS_step_tokens);
  const bool on_device = model.free_device_bytes >= 0;
  const absl::Status sized = SizeEngine({.model_context_tokens = model.info.context_length,
                                         .kv_bytes_per_token = model.kv_bytes_per_token,
                                         .kv_bytes = on_device ? 0 : kCpuKvBytes,
                                         .available_bytes = model.free_device_bytes,
                                         .device_bytes = std::max<int64_t>(model.total_device_bytes, 0),
                                         .device_fraction = absl::GetFlag(FLAGS_memory_fraction)},
                                        options);
  CHECK(sized.ok()) << sized;
  return options;
}

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void Run() {
  const Scratch scratch;
  const FigureSizes sizes = Sizes();
  int32_t max_rows = std::max(sizes.slots, sizes.workload_slots);
  for (const FigureSizes::Decode& decode : sizes.decodes) max_rows = std::max(max_rows, decode.streams);
  auto begin = std::chrono::steady_clock::now();
  absl::StatusOr<LoadedModel> model =
      LoadModel({.path = WriteConfig(scratch.path() / absl::GetFlag(FLAGS_shape)),
                 .dummy_weights = true,
                 .device = absl::GetFlag(FLAGS_backend) == "cuda" ? Device::kCuda : Device::kCpu,
                 .batch_invariant = absl::GetFlag(FLAGS_batch_invariant)});
  CHECK(model.ok()) << model.status();
  const double load_s = SecondsSince(begin);
  const EngineOptions base = BaseOptions(*model, max_rows);
  begin = std::chrono::steady_clock::now();
  absl::StatusOr<std::unique_ptr<ModelRunner>> runner = model->make_runner(
      base.block_count, base.block_tokens, std::max(base.step_tokens, sizes.fill_step_tokens), max_rows);
  CHECK(runner.ok()) << runner.status();
  std::printf(
      "{\"bench\":\"engine\",\"figure\":\"start\",\"shape\":\"%s\",\"backend\":\"%s\",\"batch_invariant\":%s,"
      "\"load_s\":%.2f,\"runner_s\":%.2f,\"kv_blocks\":%d,\"step_tokens\":%d}\n",
      absl::GetFlag(FLAGS_shape).c_str(), absl::GetFlag(FLAGS_backend).c_str(),
      absl::GetFlag(FLAGS_batch_invariant) ? "true" : "false", load_s, SecondsSince(begin), base.block_count,
      base.step_tokens);
  std::fflush(stdout);
  RunnerRecords records(*std::move(runner));
  EngineFigures figures(sizes, base, *model->tokenizer, records);
  const std::pair<std::string, std::function<void()>> known[] = {
      {"decode", [&] { figures.Decode(); }},
      {"streams", [&] { figures.Streams(); }},
      {"workload",
       [&] {
         if (!absl::GetFlag(FLAGS_workload).empty()) figures.Workload(ReadWorkload(absl::GetFlag(FLAGS_workload)));
       }},
      {"interactive", [&] { figures.Interactive(); }},
      {"pause", [&] { figures.Pause(); }},
      {"park", [&] { figures.Park(); }},
      {"swaps", [&] { figures.Swaps(); }},
  };
  for (const std::string& name : absl::GetFlag(FLAGS_figures)) {
    bool found = false;
    for (const auto& [known_name, measure] : known) {
      if (known_name != name) continue;
      measure();
      found = true;
    }
    CHECK(found) << "there is no figure \"" << name << "\"";
  }
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  FLAGS_logtostderr = true;
  FLAGS_minloglevel = 1;
  google::InitGoogleLogging(argv[0]);
  absl::ParseCommandLine(argc, argv);
  if (!absl::GetFlag(FLAGS_write_config).empty()) {
    fermata::WriteConfig(absl::GetFlag(FLAGS_write_config));
    return 0;
  }
  fermata::Run();
  return 0;
}
