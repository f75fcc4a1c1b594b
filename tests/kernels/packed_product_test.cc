// Goal: products of packed weights are right on every instruction set, and have the same bits on all of them.
// Method: random weights of each packed type and random activations over awkward shapes. Against float64 arithmetic on
// the dequantised weights and the quantised activations: what is left is float32 rounding, one step for each term.

#include "kernels/cpu/packed_product.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/quantized_rows.h"
#include "kernels/cpu/row_ops.h"
#include "tests/kernels/avx_vnni_emulator.h"

namespace fermata::kernels {
namespace {

struct Problem {
  std::vector<uint8_t> bytes;
  WeightView view;
  QuantizedRows x;
};

// Random bits, with scales that are sane f16 numbers.
Problem RandomProblem(WeightType type, int64_t rows, int64_t columns, int x_rows, uint32_t seed) {
  std::mt19937 random(seed);
  Problem problem;
  problem.view = {type, rows, columns, nullptr};
  problem.bytes.resize(rows * problem.view.row_bytes());
  for (uint8_t& byte : problem.bytes) byte = static_cast<uint8_t>(random());
  const int32_t block_bytes = InfoOf(type).block_bytes;
  const auto set_scale = [&](size_t offset) {
    problem.bytes[offset + 1] = static_cast<uint8_t>(0x20 | (random() & 0x8F));  // about 2^-7, either sign
  };
  for (size_t block = 0; block < problem.bytes.size(); block += block_bytes) {
    set_scale(type == WeightType::kQ6_K ? block + 208 : block);
    const bool has_minimum = type == WeightType::kQ4_1 || type == WeightType::kQ5_1 || type == WeightType::kQ4_K ||
                             type == WeightType::kQ5_K;
    if (has_minimum) set_scale(block + 2);
  }
  problem.view.data = problem.bytes.data();
  std::normal_distribution<float> normal;
  std::vector<float> row(columns);
  problem.x.Resize(x_rows, columns);
  for (int r = 0; r < x_rows; ++r) {
    for (float& value : row) value = normal(random);
    QuantizeRow(row.data(), r, problem.x);
  }
  return problem;
}

// [x_rows][16 * groups]
std::vector<float> MultiplyBy(PackedProduct product, const Problem& problem, int x_rows, int row_tile) {
  HugeArena arena;
  const std::unique_ptr<PackedMatrix> matrix = PackedMatrix::Pack(problem.view, arena);
  const int64_t width = matrix->group_count() * kPackedRows;
  std::vector<float> output(x_rows * width, std::numeric_limits<float>::quiet_NaN());
  for (int64_t group = 0; group < matrix->group_count(); ++group) {
    // Some rows of a tile at a time.
    for (int row = 0, count = 0; row < x_rows; row += count) {
      const int first = row % problem.x.rows_per_tile();
      count = std::min({row_tile, x_rows - row, problem.x.rows_per_tile() - first});
      PackedTile tile = {};
      tile.form = matrix->form();
      tile.columns = matrix->columns();
      tile.group = matrix->group(group);
      tile.row_count = count;
      tile.rows_per_tile = problem.x.rows_per_tile();
      tile.values = problem.x.values(row / tile.rows_per_tile) + first * 32;
      tile.blocks = problem.x.blocks(row / tile.rows_per_tile) + first;
      for (int i = 0; i < count; ++i) tile.output[i] = output.data() + (row + i) * width + group * kPackedRows;
      product(tile);
    }
  }
  return output;
}

std::vector<float> Multiply(const Problem& problem, InstructionSet set, int x_rows, int row_tile) {
  return MultiplyBy(ProductFor(set), problem, x_rows, row_tile);
}

class PackedProductTest : public testing::TestWithParam<WeightType> {
 protected:
  // Numbers of columns that the type allows: whole superblocks, or parts of what shares a header too.
  static std::vector<int64_t> Columns() {
    if (InfoOf(GetParam()).block_elements == 256) return {256, 512, 1536};
    return {32, 64, 224, 256, 288, 576, 1536};
  }
};

TEST_P(PackedProductTest, AgreesWithFloat64) {
  for (const int64_t rows : {1, 15, 16, 17, 48}) {
    for (const int64_t columns : Columns()) {
      const int x_rows = 11;
      Problem problem = RandomProblem(GetParam(), rows, columns, x_rows, static_cast<uint32_t>(rows + columns));
      QuantizedRows& x = problem.x;
      const std::vector<float> actual = Multiply(problem, InstructionSet::kPlain, x_rows, kRowTile);
      const int64_t width = (rows + kPackedRows - 1) / kPackedRows * kPackedRows;
      std::vector<float> weights(columns);
      for (int64_t o = 0; o < rows; ++o) {
        DequantizeRow(problem.view, o, weights.data());
        for (int r = 0; r < x_rows; ++r) {
          double expected = 0;
          double magnitude = 0;
          for (int64_t i = 0; i < columns; ++i) {
            const double term =
                static_cast<double>(weights[i]) * x.row_block(r, i / 32).scale * x.row_values(r, i / 32)[i % 32];
            expected += term;
            magnitude += std::fabs(term);
          }
          // Each 32 columns add a rounding or two; Q4 terms cancel between product and minimum, which is at most 16
          // times.
          const double steps = 16.0 * (2.0 * static_cast<double>(columns) / 32 + 4);
          EXPECT_NEAR(actual[r * width + o], expected, steps * std::numeric_limits<float>::epsilon() * magnitude)
              << rows << " x " << columns << " at " << o;
        }
      }
    }
  }
}

TEST_P(PackedProductTest, EveryInstructionSetAndTileGivesTheSameBits) {
  const int x_rows = 13;
  for (const int64_t columns : Columns()) {
    const Problem problem = RandomProblem(GetParam(), /*rows=*/33, columns, x_rows, /*seed=*/5);
    const std::vector<float> plain = Multiply(problem, InstructionSet::kPlain, x_rows, kRowTile);
    for (const InstructionSet set : SupportedInstructionSets()) {
      for (int tile = 1; tile <= kRowTile; ++tile) {
        EXPECT_EQ(Multiply(problem, set, x_rows, tile), plain)
            << Name(set) << ", " << columns << " columns, tiles of " << tile;
      }
    }
  }
}

#if defined(__x86_64__)
// What a machine with AVX-VNNI runs, here too.
TEST_P(PackedProductTest, AvxVnniGivesTheSameBits) {
  const std::vector<InstructionSet> sets = SupportedInstructionSets();
  if (std::find(sets.begin(), sets.end(), InstructionSet::kAvx2) == sets.end()) GTEST_SKIP() << "needs AVX2";
  const AvxVnniEmulator emulator;
  // Seven rows at once are four and three; few of everything, for each instruction emulated costs microseconds.
  const int x_rows = 7;
  const int64_t columns = InfoOf(GetParam()).block_elements == 256 ? 256 : 288;
  const Problem problem = RandomProblem(GetParam(), /*rows=*/17, columns, x_rows, /*seed=*/10);
  const std::vector<float> plain = Multiply(problem, InstructionSet::kPlain, x_rows, kRowTile);
  for (const int tile : {2, kRowTile}) {
    EXPECT_EQ(MultiplyBy(PackedProductAvxVnni, problem, x_rows, tile), plain)
        << "tiles of " << tile << ", instructions emulated: " << AvxVnniEmulator::count();
  }
}
#endif

// Sums of the largest weights of either sign and of the largest activations do not overflow.
TEST_P(PackedProductTest, LargestValuesGiveTheSameBits) {
  for (const float value : {1.0f, -1.0f}) {
    for (const uint8_t byte : {0xFF, 0x80, 0x7F, 0x00}) {
      Problem problem = RandomProblem(GetParam(), /*rows=*/16, /*columns=*/256, 1, /*seed=*/6);
      const int64_t head = GetParam() == WeightType::kQ6_K ? 0 : 4;
      const int64_t tail = GetParam() == WeightType::kQ6_K ? 192 : InfoOf(GetParam()).block_bytes;
      for (size_t block = 0; block < problem.bytes.size(); block += InfoOf(GetParam()).block_bytes) {
        std::fill(problem.bytes.begin() + block + head, problem.bytes.begin() + block + tail, byte);
      }
      problem.view.data = problem.bytes.data();
      QuantizeRow(std::vector<float>(256, value).data(), 0, problem.x);
      const std::vector<float> plain = Multiply(problem, InstructionSet::kPlain, 1, kRowTile);
      for (const InstructionSet set : SupportedInstructionSets()) {
        EXPECT_EQ(Multiply(problem, set, 1, kRowTile), plain) << Name(set) << ", bytes of " << int{byte};
      }
    }
  }
}

std::string TypeName(const testing::TestParamInfo<WeightType>& info) {
  constexpr const char* kNames[] = {"F32",  "F16",  "BF16", "Q4_0", "Q4_1", "Q8_0",
                                    "Q6_K", "Q4_K", "Q5_K", "Q5_0", "Q5_1", "IQ4_NL"};
  return kNames[static_cast<int>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Types, PackedProductTest,
                         testing::Values(WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ8_0, WeightType::kQ6_K,
                                         WeightType::kQ4_K, WeightType::kQ5_K, WeightType::kQ5_0, WeightType::kQ5_1,
                                         WeightType::kIQ4_NL),
                         TypeName);

// Whatever the vector, no load of a block's values touches two lines.
TEST_P(PackedProductTest, GroupsBeginWithACacheLine) {
  for (const int64_t columns : Columns()) {
    const Problem problem = RandomProblem(GetParam(), /*rows=*/48, columns, 1, /*seed=*/9);
    HugeArena arena;
    const std::unique_ptr<PackedMatrix> matrix = PackedMatrix::Pack(problem.view, arena);
    for (int64_t group = 0; group < matrix->group_count(); ++group) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(matrix->group(group)) % 64, 0u) << columns << " columns, group " << group;
    }
  }
}

// One row alone has another layout than many; products of it have the same bits.
TEST_P(PackedProductTest, ARowAloneIsAsInCompany) {
  const Problem many = RandomProblem(GetParam(), /*rows=*/33, /*columns=*/512, 1, /*seed=*/8);
  Problem company = RandomProblem(GetParam(), /*rows=*/33, /*columns=*/512, 3, /*seed=*/8);
  // The same generator: row 0 is the same.
  const std::vector<float> alone = Multiply(many, InstructionSet::kPlain, 1, kRowTile);
  for (const InstructionSet set : SupportedInstructionSets()) {
    std::vector<float> together = Multiply(company, set, 3, kRowTile);
    together.resize(alone.size());
    EXPECT_EQ(together, alone) << Name(set);
  }
}

class QuantizeTest : public testing::TestWithParam<const RowOps* (*)()> {
 protected:
  void Quantize(const std::vector<float>& x, int64_t row, QuantizedRows& rows) {
    (*GetParam())()->quantize(x.data(), row, 0, rows.columns() / kActivationBlock, rows);
  }
};

TEST_P(QuantizeTest, ErrIsAtMostHalfAStep) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> row(96);
  for (float& value : row) value = normal(random);
  for (int i = 32; i < 64; ++i) row[i] = 0;
  QuantizedRows quantized;
  quantized.Resize(3, 96);
  Quantize(row, 2, quantized);
  for (int b = 0; b < 3; ++b) {
    const ActivationBlock& block = quantized.row_block(2, b);
    int sums[2] = {};
    for (int i = 0; i < 32; ++i) {
      const int value = quantized.row_values(2, b)[i];
      EXPECT_NEAR(block.scale * static_cast<float>(value), row[b * 32 + i], block.scale * 0.5001f) << b << ", " << i;
      sums[i / 16] += value;
    }
    EXPECT_EQ(block.sums[0], sums[0]);
    EXPECT_EQ(block.sums[1], sums[1]);
    EXPECT_EQ(block.scaled_sum, block.scale * static_cast<float>(sums[0] + sums[1]));
  }
  EXPECT_EQ(quantized.row_block(2, 1).scale, 0.0f);
}

TEST_P(QuantizeTest, WhatIsNoNumberStaysNone) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> row(64, 1.0f);
    row[39] = bad;
    QuantizedRows quantized;
    quantized.Resize(1, 64);
    Quantize(row, 0, quantized);
    EXPECT_EQ(quantized.row_block(0, 0).scale, 1.0f / 127.0f);
    EXPECT_TRUE(std::isnan(quantized.row_block(0, 1).scale));
  }
}

// To the bit, ties to even included.
TEST_P(QuantizeTest, IsTheSameAsPlain) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  std::vector<float> row(32 * 100);
  for (float& value : row) value = normal(random);
  for (int i = 0; i < 32; ++i) row[i] = static_cast<float>(i) - 15.5f;
  row[0] = 127.0f;
  QuantizedRows plain, other;
  plain.Resize(2, 3200);
  other.Resize(2, 3200);
  QuantizeRow(row.data(), 1, plain);
  Quantize(row, 1, other);
  for (int b = 0; b < 100; ++b) {
    EXPECT_EQ(std::vector<int8_t>(plain.row_values(1, b), plain.row_values(1, b) + 32),
              std::vector<int8_t>(other.row_values(1, b), other.row_values(1, b) + 32));
    EXPECT_EQ(plain.row_block(1, b).scale, other.row_block(1, b).scale);
    EXPECT_EQ(plain.row_block(1, b).scaled_sum, other.row_block(1, b).scaled_sum);
  }
}

INSTANTIATE_TEST_SUITE_P(Both, QuantizeTest,
                         testing::Values([]() -> const RowOps* { return &PlainRowOps(); },
                                         []() -> const RowOps* { return &VectorRowOps(); }),
                         [](const auto& info) { return info.index == 0 ? "Plain" : "Vector"; });

}  // namespace
}  // namespace fermata::kernels
