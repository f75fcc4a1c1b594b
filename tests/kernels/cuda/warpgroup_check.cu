// Goal: products by warpgroups, gated ones of many rows too, give the sums that they promise, under every plan.
// Method: the plain sum in double, over fresh random operands that are exact in bfloat16; sizes, columns and rows that
// fill no box; outputs poisoned first, and what lies between their rows checked to be left alone.
//
//   warpgroup_check [seed [few | whole]]: little, for sanitizers; whole: without plans of several pieces, and of
//   clusters, whose meeting at a cluster's barrier racecheck does not know

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "glog/logging.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/gated_product.h"
#include "kernels/cuda/warpgroup_product.h"
#include "tests/kernels/cuda/device_values.h"
#include "tests/kernels/cuda/twins.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int32_t kPadding = 8;  // elements between rows
constexpr double kRounding = 1.0 / 256;

struct Case {
  int32_t rows;
  int32_t columns;
  int32_t size;
  bool floats;
  bool gated;
};

class WarpgroupCheck {
 public:
  WarpgroupCheck(uint32_t seed, bool whole) : random_(seed), whole_(whole) {}

  void Product(const Case& c) {
    const int32_t all = c.gated ? 2 * c.size : c.size;
    const int64_t x_stride = c.columns + kPadding;
    const std::vector<float> weights = RandomBf16(int64_t{all} * c.columns, 0.1f, random_);
    const std::vector<float> x = RandomBf16(c.rows * x_stride, 1.0f, random_);
    const CudaMemory device_weights = Upload(Narrowed(weights));
    const CudaMemory device_x = Upload(Narrowed(x));
    std::vector<float> expected(static_cast<size_t>(c.rows) * c.size);
    for (int32_t r = 0; r < c.rows; ++r) {
      const auto sum = [&](int32_t output) {
        double total = 0;
        for (int32_t i = 0; i < c.columns; ++i) {
          total += static_cast<double>(weights[int64_t{output} * c.columns + i]) * x[r * x_stride + i];
        }
        return total;
      };
      for (int32_t o = 0; o < c.size; ++o) {
        const double gate = sum(o);
        expected[static_cast<size_t>(r) * c.size + o] =
            static_cast<float>(c.gated ? gate / (1 + std::exp(-gate)) * sum(c.size + o) : gate);
      }
    }
    WarpgroupOperands operands = {device_weights.as<uint16_t>(),
                                  c.size,
                                  c.columns,
                                  device_x.as<uint16_t>(),
                                  x_stride,
                                  c.rows,
                                  nullptr,
                                  c.size + kPadding};
    operands.float_output = c.floats;
    operands.gated = c.gated;
    const std::vector<WarpgroupPlan> plans = WarpgroupPlans(operands);
    const std::vector<GatedPlan> gated_plans = GatedPlans(operands);
    tally.Expect("there are plans of one kind", plans.empty() != gated_plans.empty());
    for (const WarpgroupPlan& plan : plans) {
      if (whole_ && plan.pieces > 1) continue;
      Check(absl::StrCat(plan.outputs, " outputs, ", plan.pieces, " pieces"), c, operands, expected,
            [&](const WarpgroupOperands& o) { return WarpgroupProduct(o, plan, /*stream=*/nullptr); });
    }
    for (const GatedPlan& plan : gated_plans) {
      if (whole_ && plan.cluster > 1) continue;
      Check(absl::StrCat(plan.outputs, " outputs, clusters of ", plan.cluster), c, operands, expected,
            [&](const WarpgroupOperands& o) { return GatedProduct(o, plan, /*stream=*/nullptr); });
    }
  }

  Tally tally;

 private:
  template <typename Launch>
  void Check(const std::string& plan, const Case& c, WarpgroupOperands operands, const std::vector<float>& expected,
             const Launch& launch) {
    const std::string what = absl::StrCat(c.rows, " x ", c.columns, " -> ", c.size, c.floats ? " floats" : "",
                                          c.gated ? " gated" : "", ", ", plan);
    const size_t element = c.floats ? sizeof(float) : sizeof(uint16_t);
    const size_t count = static_cast<size_t>(c.rows) * operands.output_stride;
    const CudaMemory output = Allocate(static_cast<int64_t>(count * element));
    CHECK(cudaMemset(output.as<void>(), 0xff, count * element) == cudaSuccess);  // NaN
    operands.output = output.as<void>();
    Must(launch(operands), what);
    Must(cudaDeviceSynchronize(), what);
    const std::vector<uint8_t> bytes = Download<uint8_t>(output);
    std::vector<float> values;
    bool between = true;
    for (size_t i = 0; i < count; ++i) {
      float value;
      uint16_t bits;
      std::memcpy(c.floats ? static_cast<void*>(&value) : &bits, &bytes[i * element], element);
      if (!c.floats) value = Widen(bits);
      if (static_cast<int64_t>(i) % operands.output_stride < c.size) {
        values.push_back(value);
      } else {
        between = between && std::isnan(value);
      }
    }
    tally.Expect(what + ": between rows", between);
    const double absolute = 2e-6 * std::sqrt(c.columns) * 4;
    tally.Compare(what, values, expected, c.gated ? 0.03 : c.floats ? 1e-5 : kRounding, c.gated ? 0.03 : absolute);
  }

  std::mt19937 random_;
  const bool whole_;
};

int Run(uint32_t seed, bool few, bool whole) {
  if (Twins::Create() == nullptr) return 0;
  WarpgroupCheck check(seed, whole);
  if (few || whole) {
    check.Product({17, 520, 136, false, false});
    check.Product({65, 1032, 72, false, true});
    check.Product({150, 328, 136, false, true});
    return check.tally.Finish();
  }
  for (const int32_t rows : {1, 9, 16, 17, 31, 33, 64, 65, 100, 128}) {
    check.Product({rows, 4096, 320, false, false});
    check.Product({rows, 2056, 200, true, false});
    check.Product({rows, 1032, 136, false, true});
    check.Product({rows, 72, 8, false, rows % 2 == 0});
  }
  // The first ones have few steps, or a single tile; the last ones more tiles than a device has processors.
  for (const int32_t rows : {129, 255, 256, 257, 390}) {
    check.Product({rows, 8 * (rows % 5) + 8, 8, false, true});
    check.Product({rows, 1032, 232, false, true});
  }
  check.Product({512, 264, 4200, false, true});
  check.Product({2500, 72, 1000, false, true});
  check.Product({64, 4096, 2048, false, true});
  check.Product({128, 4096, 1000, true, false});
  return check.tally.Finish();
}

}  // namespace
}  // namespace fermata::kernels::cuda

int main(int argc, char** argv) {
  const uint32_t seed = fermata::kernels::SeedOf(argc, argv);
  const std::string mode = argc > 2 ? argv[2] : "";
  return fermata::kernels::cuda::Run(seed, mode == "few", mode == "whole");
}
