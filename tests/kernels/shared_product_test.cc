// Goal: how a product is shared out changes no bit: threads, rows beside it, a second product in the same call, and
// instruction sets.
// Method: each packed type through the back end, with numbers of rows that are shared out by weights and by rows.
// Against plain C++ on one thread, each row by itself.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_kernels.h"

namespace fermata::kernels {
namespace {

constexpr int32_t kRows = 53;
constexpr int32_t kColumns = 256;
constexpr int32_t kOutputs[2] = {40, 17};

class SharedProductTest : public testing::TestWithParam<WeightType> {
 protected:
  SharedProductTest() {
    std::mt19937 random(11);
    for (int i = 0; i < 2; ++i) {
      views_[i] = {GetParam(), kOutputs[i], kColumns, nullptr};
      bytes_[i].resize(kOutputs[i] * views_[i].row_bytes());
      // Whatever is read as a scale is a sane f16 number.
      for (uint8_t& byte : bytes_[i]) byte = static_cast<uint8_t>(random() & 0x2F);
      views_[i].data = bytes_[i].data();
    }
    std::normal_distribution<float> normal;
    x_.resize(kRows * kColumns);
    for (float& value : x_) value = normal(random);
  }

  // Rows [first, first + rows) of both products, one after the other.
  std::vector<float> Multiply(InstructionSet set, int threads, int32_t first, int32_t rows) const {
    CpuBackend backend({.threads = threads, .exact = false, .instruction_set = set});
    const std::unique_ptr<Buffer> x = *backend.Allocate(rows * kColumns);
    std::copy_n(x_.data() + first * kColumns, rows * kColumns, CpuBackend::Data(*x));
    std::unique_ptr<Weights> weights[2];
    std::unique_ptr<Buffer> outputs[2];
    for (int i = 0; i < 2; ++i) {
      weights[i] = *backend.Prepare(views_[i]);
      outputs[i] = *backend.Allocate(rows * kOutputs[i]);
    }
    backend.MatMul({{weights[0].get(), outputs[0].get()}, {weights[1].get(), outputs[1].get()}}, *x, rows);
    std::vector<float> all;
    for (int32_t row = 0; row < rows; ++row) {
      for (int i = 0; i < 2; ++i) {
        const float* output = CpuBackend::Data(*outputs[i]) + row * kOutputs[i];
        all.insert(all.end(), output, output + kOutputs[i]);
      }
    }
    return all;
  }

  std::vector<uint8_t> bytes_[2];
  WeightView views_[2];
  std::vector<float> x_;
};

TEST_P(SharedProductTest, ThreadsRowsAndInstructionsChangeNoBit) {
  std::vector<float> alone;
  for (int32_t row = 0; row < kRows; ++row) {
    const std::vector<float> one = Multiply(InstructionSet::kPlain, 1, row, 1);
    alone.insert(alone.end(), one.begin(), one.end());
  }
  for (const InstructionSet set : SupportedInstructionSets()) {
    for (const int threads : {1, 2, 3}) {
      for (const int32_t rows : {1, 5, 8, 33, kRows}) {
        const std::vector<float> expected(alone.begin(), alone.begin() + rows * (kOutputs[0] + kOutputs[1]));
        EXPECT_EQ(Multiply(set, threads, 0, rows), expected)
            << Name(set) << ", " << threads << " threads, " << rows << " rows";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, SharedProductTest,
                         testing::Values(WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ8_0, WeightType::kQ6_K,
                                         WeightType::kQ4_K, WeightType::kQ5_K, WeightType::kQ5_0, WeightType::kQ5_1,
                                         WeightType::kIQ4_NL));

}  // namespace
}  // namespace fermata::kernels
