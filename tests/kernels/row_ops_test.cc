// Goal: vector operations on a row are what the plain ones are.
// Method: random rows over awkward sizes, both against float64. Tolerances follow from float32's epsilon and the number
// of terms.

#include "kernels/cpu/row_ops.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
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

// A context in pages that lie in any order, with what attention to it comes to in float64.
struct Context {
  Context(int size, int page_tokens, int positions)
      : head_size(size),
        block_tokens(page_tokens),
        block_count((positions + page_tokens - 1) / page_tokens),
        keys(Random(int64_t{block_count} * page_tokens * size, 5)),
        values(Random(int64_t{block_count} * page_tokens * size, 6)) {
    for (int b = 0; b < block_count; ++b) blocks.push_back((b * 7 + 3) % block_count);
    // Seven may share a factor with their number.
    if (block_count % 7 == 0) std::iota(blocks.rbegin(), blocks.rend(), 0);
  }

  PagedHead head() const {
    return {keys.data(), values.data(), int64_t{block_tokens} * head_size, blocks.data(), block_tokens, head_size};
  }
  float key(int p, int i) const {
    return keys[(int64_t{blocks[p / block_tokens]} * head_size + i) * block_tokens + p % block_tokens];
  }
  float value(int p, int i) const {
    return values[(int64_t{blocks[p / block_tokens]} * block_tokens + p % block_tokens) * head_size + i];
  }

  std::vector<double> Attend(const float* query, int begin, int end, double scale) const {
    std::vector<double> output(head_size, 0.0);
    double total = 0;
    for (int p = begin; p < end; ++p) {
      double score = 0;
      for (int i = 0; i < head_size; ++i) score += double{query[i]} * key(p, i);
      const double weight = std::exp(score * scale);
      total += weight;
      for (int i = 0; i < head_size; ++i) output[i] += weight * value(p, i);
    }
    for (double& element : output) element /= total;
    return output;
  }

  int head_size;
  int block_tokens;
  int block_count;
  std::vector<float> keys;
  std::vector<float> values;
  std::vector<int32_t> blocks;
};

TEST_P(RowOpsTest, AttentionOverPagesInAnyOrder) {
  for (const int head_size : {2, 16, 63, 64, 80, 96, 128}) {
    for (const int block_tokens : {1, 4, 16, 37, 64}) {
      const Context context(head_size, block_tokens, /*positions=*/300);
      const float scale = 1.0f / std::sqrt(static_cast<float>(head_size));
      for (int count = 1; count <= kQueryTile; ++count) {
        const std::vector<float> queries = Random(int64_t{count} * head_size, 4);
        const size_t stride = 2 + head_size;
        std::vector<float> results(count * stride, std::numeric_limits<float>::quiet_NaN());
        std::vector<float> scores(kAttentionScratch, std::numeric_limits<float>::quiet_NaN());
        for (const int begin : {0, kAttentionSpan}) {
          const int most = std::min(300 - begin, kAttentionSpan);
          AttentionTile tile = {.query_count = count, .begin = begin};
          for (int q = 0; q < count; ++q) {
            tile.queries[q] = queries.data() + q * head_size;
            tile.ends[q] = begin + std::max(1, most - q * 13);
            tile.results[q] = reinterpret_cast<SpanResult*>(results.data() + q * stride);
          }
          ops().attention(tile, context.head(), scale, scores.data());
          for (int q = 0; q < count; ++q) {
            const std::vector<double> expected = context.Attend(tile.queries[q], begin, tile.ends[q], scale);
            for (int i = 0; i < head_size; ++i) {
              // Errors of the scores, of about head_size roundings, go through the exponential; values are of order 1.
              EXPECT_NEAR(tile.results[q]->values()[i] / tile.results[q]->weight_sum, expected[i],
                          (head_size + most + 16) * 8 * kEpsilon)
                  << head_size << ", " << block_tokens << ", " << count << " queries, " << q << " at " << i;
            }
          }
        }
      }
    }
  }
}

// To the bit: who is served together with whom makes no difference.
TEST_P(RowOpsTest, AQueryAloneIsAsInCompany) {
  const Context context(64, 16, /*positions=*/200);
  const std::vector<float> queries = Random(kQueryTile * 64, 4);
  std::vector<float> scores(kAttentionScratch);
  std::vector<float> together(kQueryTile * 66);
  AttentionTile tile = {.query_count = kQueryTile, .begin = 0};
  for (int q = 0; q < kQueryTile; ++q) {
    tile.queries[q] = queries.data() + q * 64;
    tile.ends[q] = 160 + q * 11;
    tile.results[q] = reinterpret_cast<SpanResult*>(together.data() + q * 66);
  }
  ops().attention(tile, context.head(), 0.125f, scores.data());
  for (int q = 0; q < kQueryTile; ++q) {
    std::vector<float> alone(66);
    AttentionTile one = {.query_count = 1, .begin = 0};
    one.queries[0] = tile.queries[q];
    one.ends[0] = tile.ends[q];
    one.results[0] = reinterpret_cast<SpanResult*>(alone.data());
    ops().attention(one, context.head(), 0.125f, scores.data());
    EXPECT_EQ(alone, std::vector<float>(together.begin() + q * 66, together.begin() + (q + 1) * 66)) << q;
  }
}

TEST(MergeSpansTest, IsAttentionOverAllOfThem) {
  const Context context(16, 8, /*positions=*/700);
  const std::vector<float> query = Random(16, 9);
  std::vector<float> results(3 * 18);
  std::vector<float> scores(kAttentionScratch);
  for (int span = 0; span < 3; ++span) {
    AttentionTile tile = {.query_count = 1, .begin = span * kAttentionSpan};
    tile.queries[0] = query.data();
    tile.ends[0] = std::min(700, tile.begin + kAttentionSpan);
    tile.results[0] = reinterpret_cast<SpanResult*>(results.data() + span * 18);
    PlainRowOps().attention(tile, context.head(), 0.25f, scores.data());
  }
  std::vector<float> output(16);
  MergeSpans(results.data(), 18, 3, 16, output.data());
  const std::vector<double> expected = context.Attend(query.data(), 0, 700, 0.25);
  for (int i = 0; i < 16; ++i) EXPECT_NEAR(output[i], expected[i], 716 * 8 * kEpsilon) << i;
}

INSTANTIATE_TEST_SUITE_P(Both, RowOpsTest,
                         testing::Values([]() -> const RowOps* { return &PlainRowOps(); },
                                         []() -> const RowOps* { return &VectorRowOps(); }),
                         [](const auto& info) { return info.index == 0 ? "Plain" : "Vector"; });

}  // namespace
}  // namespace fermata::kernels
