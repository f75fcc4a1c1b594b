#include "kernels/cpu/dequantize.h"

#include <cstring>

#include "kernels/cpu/half.h"

namespace fermata::kernels {
namespace {

constexpr int kQ4Elements = 32;

// f16 scale, then 16 bytes: element i in the low, element i + 16 in the high nibble of byte i. Stored with an offset
// of 8.
void DequantizeQ4_0(const uint8_t* block, float* output) {
  const float scale = F16ToFloat(LoadU16(block));
  const uint8_t* nibbles = block + 2;
  for (int i = 0; i < kQ4Elements / 2; ++i) {
    output[i] = scale * static_cast<float>((nibbles[i] & 0xF) - 8);
    output[i + kQ4Elements / 2] = scale * static_cast<float>((nibbles[i] >> 4) - 8);
  }
}

// As Q4_0, with an f16 minimum after the scale instead of the fixed offset.
void DequantizeQ4_1(const uint8_t* block, float* output) {
  const float scale = F16ToFloat(LoadU16(block));
  const float minimum = F16ToFloat(LoadU16(block + 2));
  const uint8_t* nibbles = block + 4;
  for (int i = 0; i < kQ4Elements / 2; ++i) {
    output[i] = scale * static_cast<float>(nibbles[i] & 0xF) + minimum;
    output[i + kQ4Elements / 2] = scale * static_cast<float>(nibbles[i] >> 4) + minimum;
  }
}

// f16 scale, then 32 signed bytes.
void DequantizeQ8_0(const uint8_t* block, float* output) {
  const float scale = F16ToFloat(LoadU16(block));
  for (int i = 0; i < 32; ++i) output[i] = scale * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

void DequantizeQ6K(const uint8_t* block, float* output) {
  const Q6KBlock unpacked = UnpackQ6K(block);
  for (int i = 0; i < 256; ++i) {
    output[i] = unpacked.scale * static_cast<float>(unpacked.scales[i / 16]) * static_cast<float>(unpacked.values[i]);
  }
}

void DequantizeScaled(const ScaledBlock& block, float* output) {
  for (int i = 0; i < 256; ++i) {
    const float scale = block.scale * static_cast<float>(block.scales[i / 32]);
    const float minimum = block.minimum * static_cast<float>(block.minima[i / 32]);
    output[i] = scale * static_cast<float>(block.values[i]) - minimum;
  }
}

// f16 scale, four bytes of fifth bits, 16 bytes of nibbles as in Q4_0. Stored with an offset of 16.
void DequantizeQ5_0(const uint8_t* block, float* output) {
  const float scale = F16ToFloat(LoadU16(block));
  uint8_t values[32];
  UnpackFiveBits(block + 2, values);
  for (int i = 0; i < 32; ++i) output[i] = scale * static_cast<float>(values[i] - 16);
}

// As Q5_0, with an f16 minimum after the scale instead of the fixed offset.
void DequantizeQ5_1(const uint8_t* block, float* output) {
  const float scale = F16ToFloat(LoadU16(block));
  const float minimum = F16ToFloat(LoadU16(block + 2));
  uint8_t values[32];
  UnpackFiveBits(block + 4, values);
  for (int i = 0; i < 32; ++i) output[i] = scale * static_cast<float>(values[i]) + minimum;
}

// As Q4_0, but that nibbles stand for values of a table.
void DequantizeIq4Nl(const uint8_t* block, float* output) {
  const float scale = F16ToFloat(LoadU16(block));
  const uint8_t* nibbles = block + 2;
  for (int i = 0; i < kQ4Elements / 2; ++i) {
    output[i] = scale * static_cast<float>(kIq4NlValues[nibbles[i] & 0xF]);
    output[i + kQ4Elements / 2] = scale * static_cast<float>(kIq4NlValues[nibbles[i] >> 4]);
  }
}

// f16 scale, f16 minimum, and 8 pairs of 6 bits in 12 bytes: the first four pairs fill the low bits of bytes 0 to 7;
// the others have their low four bits in bytes 8 to 11 and their high two above the first ones.
ScaledBlock UnpackScales(const uint8_t* block) {
  ScaledBlock result;
  result.scale = F16ToFloat(LoadU16(block));
  result.minimum = F16ToFloat(LoadU16(block + 2));
  const uint8_t* packed = block + 4;
  for (int i = 0; i < 4; ++i) {
    result.scales[i] = packed[i] & 0x3F;
    result.minima[i] = packed[4 + i] & 0x3F;
    result.scales[4 + i] = static_cast<uint8_t>((packed[8 + i] & 0xF) | (packed[i] >> 6 << 4));
    result.minima[4 + i] = static_cast<uint8_t>((packed[8 + i] >> 4) | (packed[4 + i] >> 6 << 4));
  }
  return result;
}

// 32 bytes of nibbles serve 64 elements: the low ones the first 32, the high ones the others.
void UnpackNibbles(const uint8_t* nibbles, uint8_t* values) {
  for (int i = 0; i < 256; ++i) values[i] = (nibbles[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4)) & 0xF;
}

}  // namespace

ScaledBlock UnpackQ4K(const uint8_t* block) {
  ScaledBlock result = UnpackScales(block);
  UnpackNibbles(block + 16, result.values);
  return result;
}

// Between scales and nibbles 32 bytes of fifth bits: bit g of byte i is of element i of the g-th 32.
ScaledBlock UnpackQ5K(const uint8_t* block) {
  ScaledBlock result = UnpackScales(block);
  UnpackNibbles(block + 48, result.values);
  const uint8_t* high = block + 16;
  for (int i = 0; i < 256; ++i) {
    result.values[i] = static_cast<uint8_t>(result.values[i] | ((high[i % 32] >> (i / 32) & 1) << 4));
  }
  return result;
}

void UnpackFiveBits(const uint8_t* high, uint8_t* values) {
  const uint8_t* nibbles = high + 4;
  for (int i = 0; i < 32; ++i) {
    const int bit = high[i / 8] >> (i % 8) & 1;
    values[i] = static_cast<uint8_t>((nibbles[i % 16] >> (i / 16 * 4) & 0xF) | (bit << 4));
  }
}

// 128 bytes of low nibbles, 64 bytes of the two bits above them, 16 scales, one f16 scale of all. In each half of 128
// elements, 32 bytes of high bits serve four groups of 32; a byte of low nibbles serves the groups 0 and 2, or 1 and 3.
Q6KBlock UnpackQ6K(const uint8_t* block) {
  Q6KBlock result;
  std::memcpy(result.scales, block + 192, sizeof(result.scales));
  result.scale = F16ToFloat(LoadU16(block + 208));
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = block + half * 64;
    const uint8_t* high = block + 128 + half * 32;
    for (int group = 0; group < 4; ++group) {
      const uint8_t* group_low = low + (group % 2) * 32;
      const int low_shift = (group / 2) * 4;
      for (int i = 0; i < 32; ++i) {
        const int value = ((group_low[i] >> low_shift) & 0xF) | (((high[i] >> (2 * group)) & 3) << 4);
        result.values[half * 128 + group * 32 + i] = static_cast<int8_t>(value - 32);
      }
    }
  }
  return result;
}

void DequantizeRow(const WeightView& view, int64_t row, float* output) {
  const WeightTypeInfo info = InfoOf(view.type);
  const uint8_t* data = view.row(row);
  for (int64_t i = 0; i < view.columns; i += info.block_elements, data += info.block_bytes) {
    switch (view.type) {
      case WeightType::kF32:
        std::memcpy(output + i, data, sizeof(float));
        break;
      case WeightType::kF16:
        output[i] = F16ToFloat(LoadU16(data));
        break;
      case WeightType::kBF16:
        output[i] = Bf16ToFloat(LoadU16(data));
        break;
      case WeightType::kQ4_0:
        DequantizeQ4_0(data, output + i);
        break;
      case WeightType::kQ4_1:
        DequantizeQ4_1(data, output + i);
        break;
      case WeightType::kQ8_0:
        DequantizeQ8_0(data, output + i);
        break;
      case WeightType::kQ6_K:
        DequantizeQ6K(data, output + i);
        break;
      case WeightType::kQ4_K:
        DequantizeScaled(UnpackQ4K(data), output + i);
        break;
      case WeightType::kQ5_K:
        DequantizeScaled(UnpackQ5K(data), output + i);
        break;
      case WeightType::kQ5_0:
        DequantizeQ5_0(data, output + i);
        break;
      case WeightType::kQ5_1:
        DequantizeQ5_1(data, output + i);
        break;
      case WeightType::kIQ4_NL:
        DequantizeIq4Nl(data, output + i);
        break;
    }
  }
}

}  // namespace fermata::kernels
