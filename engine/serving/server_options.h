// What the server's command line says.

#ifndef FERMATA_ENGINE_SERVING_SERVER_OPTIONS_H_
#define FERMATA_ENGINE_SERVING_SERVER_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/core/engine_options.h"

namespace fermata {

struct ServerOptions {
  bool help = false;  // only the text is wanted

  std::string model_path;        // a .gguf file, or a folder with config.json and safetensors
  bool dummy_weights = false;    // --load=dummy: made up, for benchmarks
  bool cuda = false;             // --backend=cuda
  int32_t threads = 0;           // that compute; 0: as many as there are cores
  bool batch_invariant = false;  // on CUDA; the CPU always is
  double gpu_memory_fraction = 0.9;
  bool exact_cpu_kernels = false;  // the float32 reference instead of the fast ones
  std::string cpu_instructions;    // those of the fast kernels, for measurements; empty: the best that there are
  std::string kv_type;             // of the KV cache's elements; empty: the model's loader chooses

  std::string data_address = "127.0.0.1:50051";
  std::vector<std::string> control_addresses = {"127.0.0.1:50052"};
  bool allow_insecure_control = false;
  std::string metrics_address;  // of Prometheus's; empty: none

  // block_count is worked out from kv_bytes; context_tokens and step_tokens of 0 are worked out from the model. See
  // SizeEngine() and CalibrateStepTokens().
  EngineOptions engine;
  int64_t kv_bytes = 0;       // 0: a share of memory
  int64_t kv_host_bytes = 0;  // 0: no such tier
  std::string kv_disk_dir;    // empty: no such tier
  int64_t kv_disk_bytes = 0;  // 0: nine tenths of what is free there
  std::optional<int32_t> data_min_priority;

  absl::Duration drain_timeout = absl::Seconds(25);
  std::string log_level = "info";
};

// Parses and checks everything once, but for what only the model can tell. INVALID_ARGUMENT naming the flag, its value
// and what is allowed.
absl::StatusOr<ServerOptions> ParseServerOptions(int argc, char** argv);

// The text of --help.
std::string ServerHelp();

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_SERVER_OPTIONS_H_
