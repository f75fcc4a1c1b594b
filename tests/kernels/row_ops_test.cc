// Goal: vector operations on a row are what the plain ones are.
// Method: random rows over awkward sizes, both against float64. Tolerances follow from float32's epsilon and the number
// of terms.

#include "kernels/cpu/row_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/kv_type.h"

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

// As Convert() stores them.
std::vector<std::byte> Stored(const std::vector<float>& values, KvType type) {
  std::vector<std::byte> bytes(values.size() * BytesOf(type));
  PlainRowOps().convert(values.data(), static_cast<int32_t>(values.size()), type, bytes.data());
  return bytes;
}

std::vector<float> Loaded(const std::vector<std::byte>& bytes, KvType type) {
  std::vector<float> values(bytes.size() / BytesOf(type));
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t half = 0;
    std::memcpy(&half, bytes.data() + i * BytesOf(type), sizeof(half));
    if (type == KvType::kF32) std::memcpy(&values[i], bytes.data() + i * 4, sizeof(float));
    if (type == KvType::kF16) values[i] = F16ToFloat(half);
    if (type == KvType::kBF16) values[i] = Bf16ToFloat(half);
  }
  return values;
}

// A context in pages that lie in any order, with what attention to it comes to in float64.
struct Context {
  Context(int size, int page_tokens, int positions, KvType kv_type = KvType::kF32)
      : head_size(size),
        block_tokens(page_tokens),
        block_count((positions + page_tokens - 1) / page_tokens),
        type(kv_type),
        key_bytes(Stored(Random(int64_t{block_count} * page_tokens * size, 5), type)),
        value_bytes(Stored(Random(int64_t{block_count} * page_tokens * size, 6), type)),
        keys(Loaded(key_bytes, type)),
        values(Loaded(value_bytes, type)) {
    for (int b = 0; b < block_count; ++b) blocks.push_back((b * 7 + 3) % block_count);
    // Seven may share a factor with their number.
    if (block_count % 7 == 0) std::iota(blocks.rbegin(), blocks.rend(), 0);
  }

  PagedHead head() const {
    const int64_t stride = int64_t{block_tokens} * head_size * BytesOf(type);
    return {type, key_bytes.data(), value_bytes.data(), stride, blocks.data(), block_tokens, head_size};
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
  KvType type;
  std::vector<std::byte> key_bytes;
  std::vector<std::byte> value_bytes;
  std::vector<float> keys;  // what is stored, as float32
  std::vector<float> values;
  std::vector<int32_t> blocks;
};

class AttentionTest : public testing::TestWithParam<std::tuple<const RowOps* (*)(), KvType>> {
 protected:
  const RowOps& ops() { return *std::get<0>(GetParam())(); }
  KvType type() { return std::get<1>(GetParam()); }
};

TEST_P(AttentionTest, OverPagesInAnyOrder) {
  for (const int head_size : {2, 16, 63, 64, 80, 96, 128}) {
    for (const int block_tokens : {1, 4, 16, 37, 64}) {
      const Context context(head_size, block_tokens, /*positions=*/300, type());
      const float scale = 1.0f / std::sqrt(static_cast<float>(head_size));
      for (int count = 1; count <= kQueryTile; ++count) {
        const std::vector<float> queries = Random(int64_t{count} * head_size, 4);
        const size_t stride = 2 + head_size;
        std::vector<float> results(count * stride, std::numeric_limits<float>::quiet_NaN());
        std::vector<float> scores(AttentionScratch(head_size), std::numeric_limits<float>::quiet_NaN());
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
TEST_P(AttentionTest, AQueryAloneIsAsInCompany) {
  const Context context(64, 16, /*positions=*/200, type());
  const std::vector<float> queries = Random(kQueryTile * 64, 4);
  std::vector<float> scores(AttentionScratch(64));
  std::vector<float> together(kQueryTile * 66);
  AttentionTile tile = {.query_count = kQueryTile, .begin = 0};
  for (int q = 0; q < kQueryTile; ++q) {
    tile.queries[q] = queries.data() + q * 64;
    tile.ends[q] = 76 + q * 11;
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
  std::vector<float> scores(AttentionScratch(64));
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

TEST_P(RowOpsTest, AddAndRotate) {
  for (const int size : {2, 6, 8, 34, 64, 80}) {
    const std::vector<float> x = Random(int64_t{3} * size, 11);
    const std::vector<float> y = Random(int64_t{3} * size, 12);
    std::vector<float> sum = x;
    ops().add(y.data(), int64_t{3} * size, sum.data());
    for (int i = 0; i < 3 * size; ++i) EXPECT_EQ(sum[i], x[i] + y[i]) << i;
    std::vector<Turn> turns;
    for (int i = 0; i < size / 2; ++i) {
      const float angle = 0.1f + static_cast<float>(i);
      turns.push_back({{std::cos(angle), std::cos(angle)}, {-std::sin(angle), std::sin(angle)}});
    }
    std::vector<float> turned = x;
    ops().rotate(turns.data(), 3, size, turned.data());
    for (int i = 0; i < 3 * size; i += 2) {
      const Turn& turn = turns[i % size / 2];
      const double cosine = turn.cosines[0];
      const double sine = turn.sines[1];
      const double tolerance = 2 * kEpsilon * (std::fabs(x[i]) + std::fabs(x[i + 1]));
      EXPECT_NEAR(turned[i], x[i] * cosine - x[i + 1] * sine, tolerance) << size << " at " << i;
      EXPECT_NEAR(turned[i + 1], x[i] * sine + x[i + 1] * cosine, tolerance) << size << " at " << i;
    }
  }
}

// Halves are what is nearest, ties to even, over all magnitudes; the same bits from every instruction set.
TEST_P(RowOpsTest, ConvertRoundsToTheNearest) {
  std::vector<float> values = {0.0f,     -0.0f,    65504.0f,   65519.0f, 65520.0f,     -1e9f,   INFINITY,
                               0x1p-24f, 0x1p-25f, 0x1.8p-25f, 0x1p-14f, 0x1.ffcp-15f, 2049.0f, 2051.0f};
  std::mt19937 random(13);
  for (int i = 0; i < 20000; ++i) {
    const float magnitude =
        std::ldexp(1.0f + static_cast<float>(random() % 65536) / 65536, static_cast<int>(i % 60) - 40);
    values.push_back(i % 2 == 0 ? magnitude : -magnitude);
  }
  const int32_t size = static_cast<int32_t>(values.size());
  for (const KvType type : {KvType::kF16, KvType::kBF16}) {
    std::vector<std::byte> bytes(size * 2);
    ops().convert(values.data(), size, type, bytes.data());
    EXPECT_EQ(bytes, Stored(values, type)) << Name(type);
    const std::vector<float> loaded = Loaded(bytes, type);
    for (int32_t i = 0; i < size; ++i) {
      if (type == KvType::kF16 && std::fabs(values[i]) >= 65520.0f) {
        EXPECT_EQ(loaded[i], std::copysign(INFINITY, values[i])) << values[i];
      } else if (std::isfinite(values[i]) && values[i] != 0.0f) {
        const double spacing = type == KvType::kF16 ? std::ldexp(1.0, std::max(std::ilogb(values[i]), -14) - 10)
                                                    : std::ldexp(1.0, std::ilogb(values[i]) - 7);
        EXPECT_LE(std::fabs(loaded[i] - values[i]), spacing / 2) << values[i];
      }
    }
  }
  EXPECT_EQ(FloatToF16(2049.0f), FloatToF16(2048.0f));
  EXPECT_EQ(FloatToF16(2051.0f), FloatToF16(2052.0f));
  EXPECT_TRUE(std::isnan(F16ToFloat(FloatToF16(NAN))));
  EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(NAN))));
}

// To the bit: those of AVX2 and the widest.
TEST(VectorRowOpsTest, EveryWidthGivesTheSameBits) {
  const RowOps& wide = VectorRowOps(/*avx512=*/true);
  const RowOps& narrow = VectorRowOps(/*avx512=*/false);
  for (const int size : {32, 64, 576, 1536}) {
    const std::vector<float> x = Random(size, 21);
    const std::vector<float> weight = Random(size, 22);
    std::vector<float> results[2][3];
    QuantizedRows rows[2];
    for (const int i : {0, 1}) {
      const RowOps& ops = i == 0 ? wide : narrow;
      results[i][0].resize(size);
      ops.rms_norm(x.data(), weight.data(), 1e-5f, size, results[i][0].data());
      results[i][1] = x;
      ops.swiglu(weight.data(), size, results[i][1].data());
      results[i][2] = {ops.dot(x.data(), weight.data(), size)};
      rows[i].Resize(1, size);
      ops.quantize(x.data(), 0, 0, size / kActivationBlock, rows[i]);
    }
    for (int n = 0; n < 3; ++n) EXPECT_EQ(results[0][n], results[1][n]) << size << ", " << n;
    for (int b = 0; b < size / kActivationBlock; ++b) {
      EXPECT_EQ(std::memcmp(rows[0].row_values(0, b), rows[1].row_values(0, b), kActivationBlock), 0);
      EXPECT_EQ(std::memcmp(&rows[0].row_block(0, b), &rows[1].row_block(0, b), sizeof(ActivationBlock)), 0);
    }
  }
  // Sizes that leave something over of each vector.
  for (const int size : {1, 8, 24, 40, 77}) {
    const std::vector<float> up = Random(size, 24);
    std::vector<float> gates[2] = {Random(size, 25), Random(size, 25)};
    wide.swiglu(up.data(), size, gates[0].data());
    narrow.swiglu(up.data(), size, gates[1].data());
    EXPECT_EQ(gates[0], gates[1]) << size;
  }
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kBF16}) {
    const Context context(64, 16, /*positions=*/250, type);
    const std::vector<float> query = Random(64, 23);
    std::vector<float> results[2];
    for (const int i : {0, 1}) {
      results[i].resize(66);
      std::vector<float> scores(AttentionScratch(64));
      AttentionTile tile = {.query_count = 1, .begin = 0};
      tile.queries[0] = query.data();
      tile.ends[0] = 250;
      tile.results[0] = reinterpret_cast<SpanResult*>(results[i].data());
      (i == 0 ? wide : narrow).attention(tile, context.head(), 0.125f, scores.data());
    }
    EXPECT_EQ(results[0], results[1]) << Name(type);
  }
}

constexpr const RowOps* (*kEvery[])() = {[]() -> const RowOps* { return &PlainRowOps(); },
                                         []() -> const RowOps* { return &VectorRowOps(/*avx512=*/false); },
                                         []() -> const RowOps* { return &VectorRowOps(/*avx512=*/true); }};

constexpr const char* kNames[] = {"Plain", "AtMostAvx2", "Widest"};

INSTANTIATE_TEST_SUITE_P(Every, RowOpsTest, testing::ValuesIn(kEvery),
                         [](const auto& info) { return std::string(kNames[info.index]); });
INSTANTIATE_TEST_SUITE_P(Every, AttentionTest,
                         testing::Combine(testing::ValuesIn(kEvery),
                                          testing::Values(KvType::kF32, KvType::kF16, KvType::kBF16)),
                         [](const auto& info) {
                           return std::string(kNames[info.index / 3]) + "_" + Name(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace fermata::kernels
