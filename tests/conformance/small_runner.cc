#include "tests/conformance/small_runner.h"

#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "engine/model/load_model.h"
#include "glog/logging.h"

namespace fermata {
namespace {

// A token's KV takes 128 bytes at most, so that the roomy pools of these tests are small.
constexpr char kConfig[] = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
"num_key_value_heads": 1, "rms_norm_eps": 1e-05, "max_position_embeddings": 65536, "vocab_size": 64,
"tie_word_embeddings": false})";

class BrakedRunner : public ModelRunner {
 public:
  BrakedRunner(std::unique_ptr<ModelRunner> runner, std::chrono::microseconds brake)
      : runner_(std::move(runner)), brake_(brake) {}

  absl::Status Run(const Batch& batch, StepOutput* output) override {
    std::this_thread::sleep_for(brake_);
    return runner_->Run(batch, output);
  }
  bool CallsLaunched() const override { return runner_->CallsLaunched(); }
  int64_t kv_block_bytes() const override { return runner_->kv_block_bytes(); }
  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHostKv(int64_t bytes) override {
    return runner_->AllocateHostKv(bytes);
  }
  absl::Status CopyKvToHost(absl::Span<const KvCopy> copies) override { return runner_->CopyKvToHost(copies); }
  absl::Status CopyKvFromHost(absl::Span<const KvCopy> copies) override { return runner_->CopyKvFromHost(copies); }

 private:
  const std::unique_ptr<ModelRunner> runner_;
  const std::chrono::microseconds brake_;
};

std::string MakeFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "small_runner.XXXXXX").string();
  CHECK(mkdtemp(name.data()) != nullptr);
  std::ofstream(std::filesystem::path(name) / "config.json") << kConfig;
  return name;
}

}  // namespace

std::unique_ptr<ModelRunner> MakeSmallRunner(const std::string& backend, std::chrono::microseconds brake,
                                             const EngineOptions& options) {
  CHECK(backend == "cpu" || backend == "cuda") << "there is no back end \"" << backend << "\"";
  const std::string folder = MakeFolder();
  absl::StatusOr<LoadedModel> model = LoadModel({.path = folder,
                                                 .dummy_weights = true,
                                                 .device = backend == "cuda" ? Device::kCuda : Device::kCpu,
                                                 .batch_invariant = true,
                                                 .threads = 1});
  std::filesystem::remove_all(folder);
  CHECK(model.ok()) << model.status();
  absl::StatusOr<std::unique_ptr<ModelRunner>> runner =
      model->make_runner(options.block_count, options.block_tokens, options.step_tokens, options.max_running);
  CHECK(runner.ok()) << runner.status();
  return std::make_unique<BrakedRunner>(*std::move(runner), brake);
}

}  // namespace fermata
