// The CUDA back end and the exact CPU back end side by side: the same values in, results compared.

#ifndef FERMATA_TESTS_KERNELS_CUDA_TWINS_H_
#define FERMATA_TESTS_KERNELS_CUDA_TWINS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device_state.h"

namespace fermata::kernels {

// Normal, and exact in bfloat16, so that both back ends begin with the same.
std::vector<float> RandomBf16(int64_t count, float deviation, std::mt19937& random);

// A program's first argument, or any if it has none; printed, so that it can be given again.
uint32_t SeedOf(int argc, char** argv);

// Counts what passed, prints what failed.
class Tally {
 public:
  // `actual` may differ from `expected` by relative * |expected| + absolute; NaN never passes.
  void Compare(const std::string& what, absl::Span<const float> actual, absl::Span<const float> expected,
               double relative, double absolute);
  void Expect(const std::string& what, bool holds);

  // Prints "N passed, N failed"; the exit status.
  int Finish() const;

 private:
  int passed_ = 0;
  int failed_ = 0;
};

// Aborts on an error of the device: nothing after it could be trusted.
class Twins {
 public:
  // Null, after saying so, if there is no device.
  static std::unique_ptr<Twins> Create(const cuda::DeviceOptions& options = {});

  // A buffer on each, with the same values; poisoned with NaN where there are none.
  struct Pair {
    std::unique_ptr<Buffer> cpu;
    std::unique_ptr<Buffer> cuda;
    int64_t count;
  };
  Pair Make(const std::vector<float>& values, bool floats = false);
  Pair MakePoisoned(int64_t count, bool floats = false);

  // A matrix (or vector, if it has one row) on each; values exact in bfloat16.
  struct WeightPair {
    std::vector<float> values;
    std::unique_ptr<Weights> cpu;
    std::unique_ptr<Weights> cuda;
  };
  WeightPair MakeWeights(int64_t rows, int64_t columns, const std::vector<float>& values);

  // Elements of both.
  std::vector<float> CpuValues(const Pair& pair) const;
  std::vector<float> CudaValues(const Pair& pair);

  // The first `count` elements of a buffer of either.
  std::vector<float> Values(Backend& backend, const Buffer& buffer, int64_t count);

  // Which of a pair's two a back end uses.
  struct OfCpu {
    Buffer* operator()(const Pair& pair) const { return pair.cpu.get(); }
    Weights* operator()(const WeightPair& pair) const { return pair.cpu.get(); }
  };
  struct OfCuda {
    Buffer* operator()(const Pair& pair) const { return pair.cuda.get(); }
    Weights* operator()(const WeightPair& pair) const { return pair.cuda.get(); }
  };

  // Has both do it: operation(Backend&, which of a pair).
  template <typename Operation>
  void Both(Operation operation) {
    operation(static_cast<Backend&>(cpu_), OfCpu());
    operation(static_cast<Backend&>(*cuda_), OfCuda());
  }

  std::vector<Backend*> Backends() { return {&cpu_, cuda_.get()}; }

  CpuBackend& cpu() { return cpu_; }
  CudaBackend& cuda() { return *cuda_; }

 private:
  explicit Twins(std::unique_ptr<CudaBackend> cuda) : cpu_({.threads = 8, .exact = true}), cuda_(std::move(cuda)) {}

  CpuBackend cpu_;
  std::unique_ptr<CudaBackend> cuda_;
};

}  // namespace fermata::kernels

#endif  // FERMATA_TESTS_KERNELS_CUDA_TWINS_H_
