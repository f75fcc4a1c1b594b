// Goal: products of packed weights are right on every instruction set, and have the same bits on all of them.
// Method: random weights of each packed type and random activations over awkward shapes. Against float64 arithmetic on
// the dequantised weights and the quantised activations: what is left is float32 rounding, one step for each term.

#include "kernels/cpu/packed_product.h"

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
    if (type == WeightType::kQ4_1) set_scale(block + 2);
  }
  problem.view.data = problem.bytes.data();
  std::normal_distribution<float> normal;
  std::vector<float> row(columns);
  problem.x.Resize(x_rows, columns);
  for (int r = 0; r < x_rows; ++r) {
    for (float& value : row) value = normal(random);
    problem.x.Quantize(row.data(), r);
  }
  return problem;
}

// [x_rows][16 * groups]
std::vector<float> Multiply(const Problem& problem, InstructionSet set, int x_rows, int row_tile) {
  const std::unique_ptr<PackedMatrix> matrix = PackedMatrix::Pack(problem.view);
  const int64_t width = matrix->group_count() * kPackedRows;
  std::vector<float> output(x_rows * width, std::numeric_limits<float>::quiet_NaN());
  for (int64_t group = 0; group < matrix->group_count(); ++group) {
    for (int row = 0; row < x_rows; row += row_tile) {
      PackedTile tile = {};
      tile.form = matrix->form();
      tile.columns = matrix->columns();
      tile.group = matrix->group(group);
      tile.row_count = std::min(row_tile, x_rows - row);
      for (int i = 0; i < tile.row_count; ++i) {
        tile.values[i] = problem.x.row_values(row + i);
        tile.scales[i] = problem.x.row_scales(row + i);
        tile.sums[i] = problem.x.row_sums(row + i);
        tile.output[i] = output.data() + (row + i) * width + group * kPackedRows;
      }
      ProductFor(set)(tile);
    }
  }
  return output;
}

class PackedProductTest : public testing::TestWithParam<WeightType> {};

TEST_P(PackedProductTest, AgreesWithFloat64) {
  for (const int64_t rows : {1, 15, 16, 17, 48}) {
    for (const int64_t columns : {256, 512, 1536}) {
      const int x_rows = 5;
      const Problem problem = RandomProblem(GetParam(), rows, columns, x_rows, static_cast<uint32_t>(rows + columns));
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
                static_cast<double>(weights[i]) * problem.x.row_scales(r)[i / 32] * problem.x.row_values(r)[i];
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
  const int x_rows = 7;
  const Problem problem = RandomProblem(GetParam(), /*rows=*/33, /*columns=*/768, x_rows, /*seed=*/5);
  const std::vector<float> plain = Multiply(problem, InstructionSet::kPlain, x_rows, kRowTile);
  for (const InstructionSet set : SupportedInstructionSets()) {
    for (int tile = 1; tile <= kRowTile; ++tile) {
      EXPECT_EQ(Multiply(problem, set, x_rows, tile), plain) << Name(set) << ", tiles of " << tile;
    }
  }
}

std::string TypeName(const testing::TestParamInfo<WeightType>& info) {
  constexpr const char* kNames[] = {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q6_K"};
  return kNames[static_cast<int>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Types, PackedProductTest,
                         testing::Values(WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ8_0, WeightType::kQ6_K),
                         TypeName);

TEST(QuantizedRowsTest, ErrIsAtMostHalfAStep) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> row(96);
  for (float& value : row) value = normal(random);
  for (int i = 32; i < 64; ++i) row[i] = 0;
  QuantizedRows quantized;
  quantized.Resize(1, 96);
  quantized.Quantize(row.data(), 0);
  for (int i = 0; i < 96; ++i) {
    const float scale = quantized.row_scales(0)[i / 32];
    EXPECT_NEAR(scale * quantized.row_values(0)[i], row[i], scale * 0.5001f) << i;
  }
  EXPECT_EQ(quantized.row_scales(0)[1], 0.0f);
  int sum = 0;
  for (int i = 16; i < 32; ++i) sum += quantized.row_values(0)[i];
  EXPECT_EQ(quantized.row_sums(0)[1], sum);
}

TEST(QuantizedRowsTest, WhatIsNoNumberStaysNone) {
  std::vector<float> row(32, 1.0f);
  row[7] = std::numeric_limits<float>::quiet_NaN();
  QuantizedRows quantized;
  quantized.Resize(1, 32);
  quantized.Quantize(row.data(), 0);
  EXPECT_TRUE(std::isnan(quantized.row_scales(0)[0]));
}

}  // namespace
}  // namespace fermata::kernels
