// Measures every plan of products by warpgroups alone, for the shapes of Llama 3.1 8B, and beside those of many rows,
// which are gated, cuBLASLt's best with a kernel for SwiGLU behind it:
//
//   bazel run --config=opt --config=cuda //tools/bench/gpu:product_bench [-- ROWS...]
//
// One JSON object a line: microseconds of one product among many, the rate at which its weights were read, and that of
// multiplying. Matrices are taken in turn from more memory than any cache holds.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/gated_product.h"
#include "kernels/cuda/matrix_product.h"
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
  explicit Bench(int64_t max_rows) : weights_(Allocate<uint16_t>(kElements)) {
    x_ = Allocate<uint16_t>(max_rows * kColumns);
    output_ = Allocate<float>(max_rows * kSize);
    Must(FillWithNoise(kElements, weights_, stream_.stream()), "noise");
    Must(FillWithNoise(max_rows * kColumns, x_, stream_.stream()), "noise");
    auto library = MatrixProduct::Create(stream_.stream(), /*batch_invariant=*/false, /*warpgroups=*/false);
    Must(library.ok() ? 0 : cudaErrorUnknown, "cuBLASLt");
    library_ = *std::move(library);
  }

  void Measure(const Shape& shape, int32_t rows) {
    WarpgroupOperands operands = {weights_, shape.size, shape.columns, x_, shape.columns, rows, output_, shape.size};
    operands.float_output = shape.floats;
    operands.gated = shape.gated;
    for (const WarpgroupPlan& plan : WarpgroupPlans(operands)) {
      Measure(shape, rows, absl::StrCat("\"outputs\":", plan.outputs, ",\"pieces\":", plan.pieces),
              [&](const uint16_t* weights) {
                operands.weights = weights;
                return WarpgroupProduct(operands, plan, stream_.stream());
              });
    }
    const std::vector<GatedPlan> plans = GatedPlans(operands);
    for (const GatedPlan& plan : plans) {
      Measure(shape, rows, absl::StrCat("\"outputs\":", plan.outputs, ",\"cluster\":", plan.cluster),
              [&](const uint16_t* weights) {
                operands.weights = weights;
                return GatedProduct(operands, plan, stream_.stream());
              });
    }
    if (!plans.empty()) MeasureLibrary(shape, rows);
  }

 private:
  static constexpr int64_t kColumns = 14336;
  static constexpr int64_t kSize = 128256;

  void MeasureLibrary(const Shape& shape, int32_t rows) {
    const int64_t elements = Elements(shape);
    std::vector<const uint16_t*> matrices;
    for (int64_t at = 0; at + elements <= kElements; at += elements) matrices.push_back(weights_ + at);
    const ProductShape product = {2 * shape.size, shape.columns, shape.columns, 2 * shape.size, false, true};
    Must(library_->Tune(product, matrices, x_, output_, rows).ok() ? 0 : cudaErrorUnknown, "cuBLASLt's plans");
    Measure(shape, rows, "\"library\":true", [&](const uint16_t* weights) {
      return library_->Multiply(product, weights, x_, rows, output_).ok() ? 0 : cudaErrorUnknown;
    });
  }

  static int64_t Elements(const Shape& shape) { return int64_t{shape.size} * shape.columns * (shape.gated ? 2 : 1); }

  template <typename Launch>
  void Measure(const Shape& shape, int32_t rows, const std::string& plan, const Launch& launch) {
    const int64_t elements = Elements(shape);
    const int64_t matrices = std::max(kElements / elements, int64_t{1});
    const std::vector<float> milliseconds = stream_.Measure(kRounds, [&] {
      for (int i = 0; i < kProducts; ++i) Must(launch(weights_ + next_++ % matrices * elements), "product");
    });
    const double us = milliseconds[milliseconds.size() / 2] / kProducts * 1e3;
    const double bytes = 2.0 * static_cast<double>(elements);
    std::printf(
        "{\"bench\":\"warpgroup_product\",\"what\":\"%s\",\"rows\":%d,%s,\"us\":%.2f,\"tb_per_s\":%.3f,"
        "\"tflop_per_s\":%.1f}\n",
        shape.name, rows, plan.c_str(), us, bytes / us / 1e6, bytes * rows / us / 1e6);
    std::fflush(stdout);
  }

  uint16_t* weights_;
  uint16_t* x_;
  float* output_;
  const TimedStream stream_;
  std::unique_ptr<MatrixProduct> library_;  // it keeps the plans that it has measured
  int64_t next_ = 0;
};

}  // namespace
}  // namespace fermata::kernels::cuda

int main(int argc, char** argv) {
  using fermata::kernels::cuda::Shape;
  std::vector<int32_t> all_rows;
  for (int i = 1; i < argc; ++i) all_rows.push_back(std::atoi(argv[i]));
  if (all_rows.empty()) all_rows = {16, 32, 64, 128, 256, 512, 2048, 8192};
  fermata::kernels::cuda::Bench bench(*std::max_element(all_rows.begin(), all_rows.end()));
  for (const int32_t rows : all_rows) {
    for (const Shape& shape : {Shape{"qkv", 6144, 4096, false, false}, Shape{"o", 4096, 4096, false, false},
                               Shape{"gate_up_swiglu", 14336, 4096, false, true},
                               Shape{"down", 4096, 14336, false, false}, Shape{"head", 128256, 4096, true, false}}) {
      bench.Measure(shape, rows);
    }
  }
}
