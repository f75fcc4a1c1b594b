// Goal: real files, of each family and form, give the same logits on CUDA as on the exact CPU path, but for bfloat16's
// rounding, and so as the references that the CPU is held against.
// Method: one random text, in chunks, on both; |cuda - cpu| / |cpu| over all logits. Small files of random weights in
// every form that GGUF files have are made on the spot.
//
//   family_check [PATH...]      .gguf files, or folders with config.json and safetensors

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/tensor_type.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/fakes/tiny_model.h"
#include "tests/kernels/cuda/twins.h"
#include "tests/model/logits_driver.h"

namespace fermata {
namespace {

constexpr double kTolerance = 0.03;

std::vector<float> Logits(const std::string& path, std::unique_ptr<kernels::Backend> backend, int32_t chunk) {
  LogitsDriver driver(path, std::move(backend));
  std::mt19937 random(11);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 70; ++i) tokens.push_back(static_cast<int32_t>(random() % driver.vocabulary_size()));
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

int Run(const std::vector<std::string>& paths) {
  kernels::Tally tally;
  for (const std::string& path : paths) {
    kernels::CpuBackendOptions exact = kernels::CpuBackend::BestOptions(/*threads=*/8);
    exact.exact = true;
    const std::vector<float> expected = Logits(path, std::make_unique<kernels::CpuBackend>(exact), 70);
    for (const int32_t chunk : {70, 1}) {
      auto cuda = kernels::CudaBackend::Create({});
      if (!cuda.ok()) {
        std::printf("skipped: %s\n", std::string(cuda.status().message()).c_str());
        return 0;
      }
      const std::vector<float> actual = Logits(path, *std::move(cuda), chunk);
      double difference = 0;
      double norm = 0;
      for (size_t i = 0; i < expected.size(); ++i) {
        difference += std::pow(static_cast<double>(actual[i]) - expected[i], 2);
        norm += std::pow(static_cast<double>(expected[i]), 2);
      }
      const double error = std::sqrt(difference / norm);
      std::printf("{\"check\":\"family\",\"model\":\"%s\",\"chunk\":%d,\"relative_error\":%.5f}\n", path.c_str(), chunk,
                  error);
      tally.Expect(path, error < kTolerance && actual.size() == expected.size());
    }
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
