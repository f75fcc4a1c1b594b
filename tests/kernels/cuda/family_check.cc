// Goal: real files, of each family and form, give the same logits on CUDA as on the exact CPU path, but for bfloat16's
// rounding, and so as the references that the CPU is held against; and folders give what transformers gave.
// Method: one random text, in chunks, on both; |cuda - cpu| / |cpu| over all logits. Small files of random weights in
// every form that GGUF files have are made on the spot. Where a folder has tokens.bin and logits.bin, as
// write_families.py and tests/goldens/families/generate.py write them, that is the text, and both are held against
// these logits too; where it has logits_bf16.bin, CUDA must be about as near as who computes in bfloat16 as well.
//
//   family_check [PATH...]      .gguf files, or folders with config.json and safetensors

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/tensor_type.h"
#include "glog/logging.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/fakes/tiny_model.h"
#include "tests/kernels/cuda/twins.h"
#include "tests/model/logits_driver.h"

namespace fermata {
namespace {

constexpr double kTolerance = 0.03;

constexpr double kCpuTolerance = 1e-4;

std::vector<float> Logits(const std::string& path, std::unique_ptr<kernels::Backend> backend, int32_t chunk) {
  LogitsDriver driver(path, std::move(backend));
  std::mt19937 random(11);
  std::vector<int32_t> tokens = ReadNumbers<int32_t>(path + "/tokens.bin");
  if (tokens.empty()) {
    for (int i = 0; i < 70; ++i) tokens.push_back(static_cast<int32_t>(random() % driver.vocabulary_size()));
  }
  ForcedSequence sequence = driver.Begin(tokens, /*first_output=*/0);
  driver.Run(sequence, chunk);
  std::vector<float> all;
  for (const std::vector<float>& row : sequence.logits) all.insert(all.end(), row.begin(), row.end());
  return all;
}

// One of each form.
std::vector<std::string> WriteModels() {
  std::vector<std::string> paths;
  for (const TensorType type : {TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ4_0,
                                TensorType::kQ4_1, TensorType::kQ8_0, TensorType::kQ6_K, TensorType::kQ4_K,
                                TensorType::kQ5_K, TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kIQ4_NL}) {
    TinyModelOptions options;
    options.weight_type = type;
    options.embedding_size = options.feed_forward_size = 256;
    options.tied = paths.size() % 2 == 0;  // both ways get a turn
    paths.push_back(WriteTinyModel(options));
  }
  return paths;
}

// |a - b| / |b|; infinite where there are not as many.
double RelativeError(const std::vector<float>& actual, const std::vector<float>& expected) {
  if (actual.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(actual[i]) - expected[i], 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(difference / norm);
}

void Expect(const std::string& path, const std::string& what, double error, double tolerance, kernels::Tally& tally) {
  std::printf("{\"check\":\"family\",\"model\":\"%s\",\"what\":\"%s\",\"relative_error\":%.6f}\n", path.c_str(),
              what.c_str(), error);
  std::fflush(stdout);
  tally.Expect(path + ": " + what, error < tolerance);
}

// What others computed of a folder, in float32 and in bfloat16.
struct Reference {
  std::vector<float> exact;
  std::vector<float> rounded;
};

void CheckCuda(const std::string& path, const std::vector<float>& cpu, const Reference& reference, int32_t chunk,
               kernels::Tally& tally) {
  const std::string what = "CUDA in chunks of " + std::to_string(chunk);
  auto cuda = kernels::CudaBackend::Create({});
  CHECK(cuda.ok()) << cuda.status();
  const std::vector<float> actual = Logits(path, *std::move(cuda), chunk);
  Expect(path, what, RelativeError(actual, cpu), kTolerance, tally);
  if (reference.exact.empty()) return;
  Expect(path, what + " against the reference", RelativeError(actual, reference.exact), kTolerance, tally);
  if (reference.rounded.empty()) return;
  const double theirs = RelativeError(reference.rounded, reference.exact);
  std::printf(
      "{\"check\":\"family\",\"model\":\"%s\",\"what\":\"the reference in bfloat16\",\"relative_error\":%.6f}\n",
      path.c_str(), theirs);
  Expect(path, what + " against the reference in bfloat16", RelativeError(actual, reference.rounded),
         kTolerance + theirs, tally);
}

// Without a device the CPU alone is held against the references.
int Run(const std::vector<std::string>& paths) {
  const absl::Status device = kernels::CudaBackend::Create({}).status();
  if (!device.ok()) std::printf("skipped: %s\n", std::string(device.message()).c_str());
  kernels::Tally tally;
  for (const std::string& path : paths) {
    kernels::CpuBackendOptions exact = kernels::CpuBackend::BestOptions(/*threads=*/8);
    exact.exact = true;
    const std::vector<float> cpu = Logits(path, std::make_unique<kernels::CpuBackend>(exact), 70);
    const Reference reference = {ReadNumbers<float>(path + "/logits.bin"),
                                 ReadNumbers<float>(path + "/logits_bf16.bin")};
    if (!reference.exact.empty()) {
      Expect(path, "CPU against the reference", RelativeError(cpu, reference.exact), kCpuTolerance, tally);
    }
    if (!device.ok()) continue;
    for (const int32_t chunk : {70, 1}) CheckCuda(path, cpu, reference, chunk, tally);
  }
  return tally.Finish();
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  std::vector<std::string> paths = fermata::WriteModels();
  paths.insert(paths.end(), argv + 1, argv + argc);
  return fermata::Run(paths);
}
