// Wiring only: flags, the model, the engine, the two services, and an orderly end.

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "control/control_service.h"
#include "engine/model/load_model.h"
#include "engine/model/model_fingerprint.h"
#include "engine/runtime/available_memory.h"
#include "engine/runtime/clock.h"
#include "engine/runtime/engine_runtime.h"
#include "engine/runtime/engine_sizing.h"
#include "engine/runtime/kv_tiers.h"
#include "engine/runtime/step_calibration.h"
#include "engine/serving/engine_collector.h"
#include "engine/serving/inference_service.h"
#include "engine/serving/listener.h"
#include "engine/serving/metrics.h"
#include "engine/serving/metrics_server.h"
#include "engine/serving/model_text.h"
#include "engine/serving/server_options.h"
#include "glog/logging.h"

namespace fermata {
namespace {

constexpr int kExitError = 1;
constexpr int kExitWrongFlags = 2;
constexpr absl::Duration kStepTarget = absl::Milliseconds(100);
constexpr int32_t kMaxStepTokens = 2048;
constexpr absl::Duration kStreamGrace = absl::Seconds(5);  // for readers to take their last message

// Blocked in every thread, and waited for in main().
sigset_t EndSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

void AwaitSignal() {
  const sigset_t signals = EndSignals();
  int signal = 0;
  sigwait(&signals, &signal);
}

int Fail(const absl::Status& status, int code) {
  std::fprintf(stderr, "fermata: %s\n", std::string(status.message()).c_str());
  return code;
}

// Fills in what depends on the model, and makes its runner.
absl::StatusOr<std::unique_ptr<ModelRunner>> FitEngine(const LoadedModel& model, const Clock& clock,
                                                       ServerOptions& options) {
  EngineOptions& engine = options.engine;
  const absl::Status sized =
      SizeEngine({.model_context_tokens = model.info.context_length,
                  .kv_bytes_per_token = model.kv_bytes_per_token,
                  .kv_bytes = options.kv_bytes,
                  .available_bytes = model.free_device_bytes >= 0 ? model.free_device_bytes : AvailableMemoryBytes(),
                  .device_bytes = std::max<int64_t>(model.total_device_bytes, 0),
                  .device_fraction = options.gpu_memory_fraction},
                 engine);
  if (!sized.ok()) return sized;
  const int32_t max_step_tokens = engine.step_tokens > 0 ? engine.step_tokens : kMaxStepTokens;
  absl::StatusOr<std::unique_ptr<ModelRunner>> runner =
      model.make_runner(engine.block_count, engine.block_tokens, max_step_tokens, engine.max_running);
  if (!runner.ok() || engine.step_tokens > 0) return runner;
  const absl::StatusOr<int32_t> step_tokens =
      CalibrateStepTokens(**runner, clock, kStepTarget, engine.block_tokens, engine.block_count, max_step_tokens);
  if (!step_tokens.ok()) return step_tokens.status();
  engine.step_tokens = *step_tokens;
  return runner;
}

absl::StatusOr<KvTiers> OpenTiers(const LoadedModel& model, ModelRunner& runner, ServerOptions& options) {
  KvTierOptions tiers = {
      .host_bytes = options.kv_host_bytes, .disk_dir = options.kv_disk_dir, .disk_bytes = options.kv_disk_bytes};
  if (!tiers.disk_dir.empty()) {
    const absl::StatusOr<std::string> weights = ModelFingerprint(options.model_path);
    if (!weights.ok()) return weights.status();
    // What the blocks look like, too.
    tiers.fingerprint =
        absl::StrCat("model=", *weights, " backend=", options.cuda ? "cuda" : "cpu", " kv_type=", model.kv_type,
                     " block_tokens=", options.engine.block_tokens, " block_bytes=", runner.kv_block_bytes());
  }
  return OpenKvTiers(tiers, runner, options.engine);
}

void LogStart(const LoadedModel& model, const EngineOptions& engine) {
  LOG(INFO) << "model " << model.info.name << " (" << model.info.family << ", " << model.info.quantization << ", "
            << model.info.parameter_count / 1000000 << "M parameters), context " << engine.context_tokens
            << " tokens, KV pool " << engine.block_count << " blocks of " << engine.block_tokens << " tokens, step "
            << engine.step_tokens << " tokens, at most " << engine.max_running << " running";
  if (engine.host_block_count > 0) LOG(INFO) << "host tier: " << engine.host_block_count << " blocks of KV";
  if (engine.disk_block_count > 0) LOG(INFO) << "disk tier: " << engine.disk_block_count << " blocks of KV";
  if (model.chat_template == nullptr) LOG(WARNING) << "no chat prompts: " << model.chat_template_status.message();
  if (engine.policy == SchedulePolicy::kFcfs) LOG(WARNING) << "--policy=fcfs: priorities are kept, but do not order";
}

// A name as one word, for scripts that split the line.
std::string AsOneWord(std::string name) {
  for (char& c : name) {
    if (!absl::ascii_isgraph(static_cast<unsigned char>(c))) c = '-';
  }
  return name;
}

void AnnounceReady(const Listener& data, const Listener& control, const MetricsServer* metrics,
                   const std::string& model_name, bool cuda) {
  std::printf("ready data=%s control=%s model=%s backend=%s", absl::StrJoin(data.addresses(), ",").c_str(),
              absl::StrJoin(control.addresses(), ",").c_str(), AsOneWord(model_name).c_str(), cuda ? "cuda" : "cpu");
  if (metrics != nullptr) std::printf(" metrics=%s", metrics->address().c_str());
  std::printf("\n");
  std::fflush(stdout);
}

// Ends the process if asked a second time.
void EndAtOnceOnSignal() {
  std::thread([] {
    AwaitSignal();
    _exit(kExitError);
  }).detach();
}

int Serve(ServerOptions options) {
  absl::StatusOr<LoadedModel> model =
      LoadModel({.path = options.model_path,
                 .dummy_weights = options.dummy_weights,
                 .device = options.cuda ? Device::kCuda : Device::kCpu,
                 .batch_invariant = options.batch_invariant,
                 .threads = options.threads,
                 .device_memory_fraction = options.gpu_memory_fraction,
                 .kv_bytes = options.kv_bytes,
                 .cpu_kernels = options.exact_cpu_kernels ? CpuKernels::kExact : CpuKernels::kFast,
                 .cpu_instructions = options.cpu_instructions,
                 .kv_type = options.kv_type});
  if (!model.ok()) return Fail(model.status(), kExitError);
  const MonotonicClock clock;
  absl::StatusOr<std::unique_ptr<ModelRunner>> runner = FitEngine(*model, clock, options);
  if (!runner.ok()) return Fail(runner.status(), kExitError);
  absl::StatusOr<KvTiers> tiers = OpenTiers(*model, **runner, options);
  if (!tiers.ok()) return Fail(tiers.status(), kExitError);
  options.engine.first_revision = absl::ToUnixMicros(clock.Now());
  const absl::Status valid = options.engine.Validate();
  if (!valid.ok()) return Fail(valid, kExitWrongFlags);

  const ModelText text = {.info = model->info,
                          .context_tokens = options.engine.context_tokens,
                          .tokenizer = model->tokenizer.get(),
                          .chat_template = model->chat_template.get(),
                          .chat_template_status = model->chat_template_status};
  Metrics metrics;
  EngineRuntime runtime({.engine = options.engine,
                         .backend = options.cuda ? "cuda" : "cpu",
                         .observer = &metrics,
                         .tiers = *std::move(tiers)},
                        *model->tokenizer, *std::move(runner), clock);
  InferenceService inference_service(runtime, text, {.min_priority = options.data_min_priority});
  ControlService control_service(runtime, text);
  absl::StatusOr<std::unique_ptr<Listener>> data = Listener::Start({options.data_address}, inference_service);
  if (!data.ok()) return Fail(data.status(), kExitError);
  absl::StatusOr<std::unique_ptr<Listener>> control = Listener::Start(options.control_addresses, control_service);
  if (!control.ok()) return Fail(control.status(), kExitError);
  std::unique_ptr<MetricsServer> metrics_server;
  if (!options.metrics_address.empty()) {
    absl::StatusOr<std::unique_ptr<MetricsServer>> started =
        MetricsServer::Start(options.metrics_address, {metrics.registry(), std::make_shared<EngineCollector>(runtime)});
    if (!started.ok())
      return Fail(started.status(), absl::IsInvalidArgument(started.status()) ? kExitWrongFlags : kExitError);
    metrics_server = *std::move(started);
  }
  LogStart(*model, options.engine);
  AnnounceReady(**data, **control, metrics_server.get(), model->info.name, options.cuda);

  AwaitSignal();
  LOG(INFO) << "draining for at most " << absl::FormatDuration(options.drain_timeout);
  EndAtOnceOnSignal();
  (*data)->SetServing(false);
  (*control)->SetServing(false);
  runtime.Drain();
  const bool drained = runtime.AwaitDrained(options.drain_timeout);
  LOG(INFO) << (drained ? "drained" : "the drain has lasted long enough")
            << (options.kv_disk_dir.empty() ? ", the rest is aborted" : ", the rest is parked on disk");
  runtime.Shutdown("the server has ended");
  // One span of grace for both.
  const absl::Time end = clock.Now() + kStreamGrace;
  (*data)->Shutdown(kStreamGrace);
  (*control)->Shutdown(end - clock.Now());
  return 0;
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  FLAGS_logtostderr = true;
  google::InitGoogleLogging(argv[0]);
  const sigset_t signals = fermata::EndSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // Whoever started this may stop reading its output.
  signal(SIGPIPE, SIG_IGN);
  const absl::StatusOr<fermata::ServerOptions> options = fermata::ParseServerOptions(argc, argv);
  if (!options.ok()) return fermata::Fail(options.status(), fermata::kExitWrongFlags);
  if (options->help) {
    std::fputs(fermata::ServerHelp().c_str(), stdout);
    return 0;
  }
  FLAGS_minloglevel = options->log_level == "error" ? 2 : options->log_level == "warning" ? 1 : 0;
  return fermata::Serve(*options);
}
