// Goal: what the back end does apart from any model: a step of no segments, and operations made of others.

#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"

namespace fermata::kernels {
namespace {

class CpuBackendTest : public testing::Test {
 protected:
  std::unique_ptr<Buffer> Filled(const std::vector<float>& values) {
    std::unique_ptr<Buffer> buffer = backend_.Allocate(static_cast<int64_t>(values.size())).value();
    std::copy(values.begin(), values.end(), CpuBackend::Data(*buffer));
    return buffer;
  }
  std::unique_ptr<Weights> Matrix(const std::vector<float>& values, int64_t rows, int64_t columns) {
    return backend_.Prepare({WeightType::kF32, rows, columns, reinterpret_cast<const uint8_t*>(values.data())}).value();
  }

  CpuBackend backend_{{.threads = 1, .exact = true}};
};

// It once looked at the last segment of none.
TEST_F(CpuBackendTest, AStepWithoutSegmentsGathersRows) {
  const std::unique_ptr<Buffer> x = Filled({1, 2, 3, 4, 5, 6});
  const std::unique_ptr<Buffer> gathered = Filled({0, 0, 0, 0});
  backend_.BeginStep({});
  backend_.GatherRows(*x, {2, 0}, 2, *gathered);
  const float* values = CpuBackend::Data(*gathered);
  EXPECT_EQ(std::vector<float>(values, values + 4), std::vector<float>({5, 6, 1, 2}));
}

TEST_F(CpuBackendTest, AGatedProductIsBothProductsAndSwiGlu) {
  const std::vector<float> gate_values = {1, 0, 0, 1};
  const std::vector<float> up_values = {0, 1, 1, 0};
  const std::unique_ptr<Weights> gate = Matrix(gate_values, 2, 2);
  const std::unique_ptr<Weights> up = Matrix(up_values, 2, 2);
  const std::unique_ptr<Buffer> x = Filled({0.5f, -2.0f});
  const std::unique_ptr<Buffer> gated = Filled({0, 0});
  const std::unique_ptr<Buffer> other = Filled({0, 0});
  backend_.GatedMatMul({gate.get(), gated.get()}, {up.get(), other.get()}, *x, 1);
  const float* values = CpuBackend::Data(*gated);
  EXPECT_NEAR(values[0], 0.5f / (1 + std::exp(-0.5f)) * -2.0f, 1e-5);
  EXPECT_NEAR(values[1], -2.0f / (1 + std::exp(2.0f)) * 0.5f, 1e-5);
}

}  // namespace
}  // namespace fermata::kernels
