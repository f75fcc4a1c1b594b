// Goal: vector operations on a row are what the plain ones are.
// Method: random rows over awkward sizes, both against float64. Tolerances follow from float32's epsilon and the number
// of terms.

#include "kernels/cpu/row_ops.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace fermata::kernels {
namespace {

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

std::vector<float> Random(int64_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

class RowOpsTest : public testing::TestWithParam<const RowOps* (*)()> {
 protected:
  const RowOps& ops() { return *GetParam()(); }
};

TEST_P(RowOpsTest, DotAndNorm) {
  for (const int size : {1, 7, 8, 15, 16, 17, 64, 576, 577}) {
    const std::vector<float> a = Random(size, 1);
    const std::vector<float> b = Random(size, 2);
    double dot = 0;
    double magnitude = 0;
    double squares = 0;
    for (int i = 0; i < size; ++i) {
      dot += double{a[i]} * b[i];
      magnitude += std::fabs(double{a[i]} * b[i]);
      squares += double{a[i]} * a[i];
    }
    EXPECT_NEAR(ops().dot(a.data(), b.data(), size), dot, size * kEpsilon * magnitude) << size;
    std::vector<float> output(size, std::numeric_limits<float>::quiet_NaN());
    ops().rms_norm(a.data(), b.data(), 1e-5f, size, output.data());
    for (int i = 0; i < size; ++i) {
      const double expected = a[i] / std::sqrt(squares / size + 1e-5) * b[i];
      EXPECT_NEAR(output[i], expected, (size + 4) * kEpsilon * std::fabs(expected)) << size << " at " << i;
    }
  }
}

TEST_P(RowOpsTest, SwiGluOverItsWholeRange) {
  std::vector<float> gate;
  for (float x = -100.0f; x <= 100.0f; x += 0.37f) gate.push_back(x);
  const std::vector<float> up = Random(static_cast<int64_t>(gate.size()), 3);
  std::vector<float> output = gate;
  ops().swiglu(up.data(), static_cast<int32_t>(gate.size()), output.data());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double expected = gate[i] / (1 + std::exp(-double{gate[i]})) * up[i];
    // Far out the exponential's relative error counts, and below -88 it is beyond float32: what is left may be zero.
    EXPECT_NEAR(output[i], expected, 32 * kEpsilon * std::fabs(expected) + 1e-35) << gate[i];
  }
}

TEST_P(RowOpsTest, AttentionOverPagesInAnyOrder) {
  constexpr int kHeadSizes[] = {2, 16, 64, 80, 96, 128};
  for (const int head_size : kHeadSizes) {
    for (const int positions : {1, 3, 4, 5, 37}) {
      constexpr int kBlockTokens = 4;
      const std::vector<float> query = Random(head_size, 4);
      const std::vector<float> keys = Random(10 * kBlockTokens * head_size, 5);
      const std::vector<float> values = Random(10 * kBlockTokens * head_size, 6);
      const std::vector<int32_t> blocks = {7, 2, 9, 0, 4, 1, 3, 8, 5, 6};
      const PagedHead head = {keys.data(),   values.data(), kBlockTokens * head_size,
                              blocks.data(), kBlockTokens,  head_size};
      const float scale = 1.0f / std::sqrt(static_cast<float>(head_size));
      std::vector<float> scores(positions);
      std::vector<float> output(head_size, std::numeric_limits<float>::quiet_NaN());
      ops().attention(query.data(), head, positions, scale, scores.data(), output.data());

      std::vector<double> weights(positions);
      double total = 0;
      const auto slot = [&](int p) { return (blocks[p / kBlockTokens] * kBlockTokens + p % kBlockTokens) * head_size; };
      for (int p = 0; p < positions; ++p) {
        double score = 0;
        for (int i = 0; i < head_size; ++i) score += double{query[i]} * keys[slot(p) + i];
        weights[p] = std::exp(score * scale);
        total += weights[p];
      }
      for (int i = 0; i < head_size; ++i) {
        double expected = 0;
        for (int p = 0; p < positions; ++p) expected += weights[p] / total * values[slot(p) + i];
        // Errors of the scores, of about head_size roundings, go through the exponential; values are of order 1.
        EXPECT_NEAR(output[i], expected, (head_size + positions + 16) * 8 * kEpsilon) << head_size << ", " << positions;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Both, RowOpsTest,
                         testing::Values([]() -> const RowOps* { return &PlainRowOps(); },
                                         []() -> const RowOps* { return &VectorRowOps(); }),
                         [](const auto& info) { return info.index == 0 ? "Plain" : "Vector"; });

}  // namespace
}  // namespace fermata::kernels
