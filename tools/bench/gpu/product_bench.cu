// Measures every plan of products by warpgroups alone, for the shapes of Llama 3.1 8B:
//
//   bazel run --config=opt --config=cuda //tools/bench/gpu:product_bench [-- ROWS...]
//
// One JSON object a line: microseconds of one product among many, and the rate at which its weights were read. Matrices
// are taken in turn from more memory than any cache holds.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/cuda/row_kernels.h"
#include "kernels/cuda/warpgroup_product.h"
#include "tools/bench/gpu/bench_device.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int64_t kElements = int64_t{1} << 30;  // of weights in turn
constexpr int kRounds = 7;
constexpr int kProducts = 32;

struct Shape {
  const char* name;
  int32_t size;
  int32_t columns;
  bool floats;
  bool gated;
};

class Bench {
 public:
  Bench() : weights_(Allocate<uint16_t>(kElements)), x_(Allocate<uint16_t>(kRows * kColumns)) {
    output_ = Allocate<float>(kRows * kSize);
    Must(FillWithNoise(kElements, weights_, stream_.stream()), "noise");
    Must(FillWithNoise(kRows * kColumns, x_, stream_.stream()), "noise");
  }

  void Measure(const Shape& shape, int32_t rows) {
    WarpgroupOperands operands = {weights_, shape.size, shape.columns, x_, shape.columns, rows, output_, shape.size};
    operands.float_output = shape.floats;
    operands.gated = shape.gated;
    const int64_t elements = int64_t{shape.size} * shape.columns * (shape.gated ? 2 : 1);
    const int64_t matrices = std::max(kElements / elements, int64_t{1});
    for (const WarpgroupPlan& plan : WarpgroupPlans(operands)) {
      const std::vector<float> milliseconds = stream_.Measure(kRounds, [&] {
        for (int i = 0; i < kProducts; ++i) {
          operands.weights = weights_ + next_++ % matrices * elements;
          Must(WarpgroupProduct(operands, plan, stream_.stream()), "product");
        }
      });
      const double us = milliseconds[milliseconds.size() / 2] / kProducts * 1e3;
      std::printf(
          "{\"bench\":\"warpgroup_product\",\"what\":\"%s\",\"rows\":%d,\"outputs\":%d,\"pieces\":%d,\"us\":%.2f,"
          "\"tb_per_s\":%.3f}\n",
          shape.name, rows, plan.outputs, plan.pieces, us, 2.0 * static_cast<double>(elements) / us / 1e6);
      std::fflush(stdout);
    }
  }

 private:
  static constexpr int64_t kRows = kWarpgroupProductRows;
  static constexpr int64_t kColumns = 14336;
  static constexpr int64_t kSize = 128256;

  uint16_t* weights_;
  uint16_t* x_;
  float* output_;
  const TimedStream stream_;
  int64_t next_ = 0;
};

}  // namespace
}  // namespace fermata::kernels::cuda

int main(int argc, char** argv) {
  using fermata::kernels::cuda::Shape;
  std::vector<int32_t> all_rows;
  for (int i = 1; i < argc; ++i) all_rows.push_back(std::atoi(argv[i]));
  if (all_rows.empty()) all_rows = {16, 32, 64, 128};
  fermata::kernels::cuda::Bench bench;
  for (const int32_t rows : all_rows) {
    for (const Shape& shape : {Shape{"qkv", 6144, 4096, false, false}, Shape{"o", 4096, 4096, false, false},
                               Shape{"gate_up_swiglu", 14336, 4096, false, true},
                               Shape{"down", 4096, 14336, false, false}, Shape{"head", 128256, 4096, true, false}}) {
      bench.Measure(shape, rows);
    }
  }
}
