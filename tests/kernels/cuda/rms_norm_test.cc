// Goal: the device's RMS norm is that of plain C++.
// Method: seeded random rows over awkward sizes (1, odd, one less and one more than a block of threads), outputs
// poisoned first, against float64 arithmetic. The tolerance follows from float32's epsilon and the length of the
// reduction.

#include "kernels/cuda/rms_norm.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/cuda/device_buffer.h"

namespace fermata::kernels::cuda {
namespace {

constexpr float kEpsilon = 1e-5f;

std::vector<float> RandomValues(size_t size, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(size);
  for (float& value : values) value = distribution(generator);
  return values;
}

std::vector<double> Twin(const std::vector<float>& x, const std::vector<float>& weight, int64_t rows, int32_t size) {
  std::vector<double> output(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (int32_t i = 0; i < size; ++i) sum += static_cast<double>(x[r * size + i]) * x[r * size + i];
    const double scale = 1.0 / std::sqrt(sum / size + kEpsilon);
    for (int32_t i = 0; i < size; ++i) output[r * size + i] = x[r * size + i] * scale * weight[i];
  }
  return output;
}

std::vector<float> OnDevice(const std::vector<float>& x, const std::vector<float>& weight, int64_t rows, int32_t size) {
  DeviceBuffer device_x(x);
  DeviceBuffer device_weight(weight);
  DeviceBuffer output(x.size());
  EXPECT_EQ(RmsNorm(device_x.data(), device_weight.data(), kEpsilon, rows, size, output.data(), nullptr), 0);
  return output.ToHost();
}

TEST(RmsNormTest, AgreesWithItsTwinOverAwkwardShapes) {
  if (!HasDevice()) GTEST_SKIP() << "no CUDA device here";
  for (const int64_t rows : {1, 3, 64}) {
    for (const int32_t size : {1, 7, 64, 255, 256, 257, 576, 4096}) {
      const std::vector<float> x = RandomValues(rows * size, 1);
      const std::vector<float> weight = RandomValues(size, 2);
      const std::vector<double> expected = Twin(x, weight, rows, size);
      const std::vector<float> actual = OnDevice(x, weight, rows, size);
      // The sum of squares has no cancellation: its relative error is at most the number of additions in a row, one for
      // each element of a thread and one for each level of the tree, times epsilon. Half of it reaches the root.
      const double tolerance = (size / 256.0 + 16.0) * std::numeric_limits<float>::epsilon();
      for (size_t i = 0; i < actual.size(); ++i) {
        ASSERT_NEAR(actual[i], expected[i], tolerance * std::abs(expected[i])) << rows << " x " << size << " at " << i;
      }
    }
  }
}

TEST(RmsNormTest, ARowHasTheSameBitsInAnyCompany) {
  if (!HasDevice()) GTEST_SKIP() << "no CUDA device here";
  constexpr int32_t kSize = 576;
  const std::vector<float> x = RandomValues(8 * kSize, 3);
  const std::vector<float> weight = RandomValues(kSize, 4);
  const std::vector<float> together = OnDevice(x, weight, 8, kSize);
  for (int row = 0; row < 8; ++row) {
    const std::vector<float> alone(x.begin() + row * kSize, x.begin() + (row + 1) * kSize);
    const std::vector<float> expected(together.begin() + row * kSize, together.begin() + (row + 1) * kSize);
    EXPECT_EQ(OnDevice(alone, weight, 1, kSize), expected);
  }
}

}  // namespace
}  // namespace fermata::kernels::cuda
