#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/half.h"

namespace fermata::kernels {
namespace {

PackedForm FormOf(WeightType type) {
  switch (type) {
    case WeightType::kQ8_0:
      return PackedForm::kBytes;
    case WeightType::kIQ4_NL:
      return PackedForm::kTableNibbles;
    case WeightType::kQ6_K:
      return PackedForm::kSixBits;
    case WeightType::kQ5_0:
    case WeightType::kQ5_1:
      return PackedForm::kFiveBits;
    case WeightType::kQ4_K:
      return PackedForm::kScaledNibbles;
    case WeightType::kQ5_K:
      return PackedForm::kScaledFiveBits;
    default:
      return PackedForm::kNibbles;
  }
}

int64_t GroupBytes(PackedForm form, int64_t columns) {
  switch (form) {
    case PackedForm::kNibbles:
      return NibblesLayout<false, false>::Bytes(columns);
    case PackedForm::kFiveBits:
      return NibblesLayout<true, false>::Bytes(columns);
    case PackedForm::kScaledNibbles:
      return NibblesLayout<false, true>::Bytes(columns);
    case PackedForm::kScaledFiveBits:
      return NibblesLayout<true, true>::Bytes(columns);
    case PackedForm::kTableNibbles:
      return BytesLayout<true>::Bytes(columns);
    case PackedForm::kBytes:
      return BytesLayout<false>::Bytes(columns);
    case PackedForm::kSixBits:
      return columns / 16 * SixBitsLayout::kBlockBytes;
  }
  return 0;
}

void StoreU16(uint16_t value, uint8_t* bytes) { std::memcpy(bytes, &value, sizeof(value)); }

// -2^`power` * the f16 `bits`, in f16. Exact but for overflow, which no sane scale reaches.
uint16_t TimesMinusPower(uint16_t bits, int power) {
  const uint16_t sign = (bits & 0x8000u) ^ 0x8000u;
  const uint16_t exponent = (bits >> 10) & 0x1Fu;
  uint16_t mantissa = bits & 0x3FFu;
  if (exponent == 0x1F) return sign | (bits & 0x7FFFu);
  if (exponent != 0) {
    return exponent + power >= 0x1F ? static_cast<uint16_t>(sign | 0x7C00u)
                                    : static_cast<uint16_t>(sign | ((exponent + power) << 10) | mantissa);
  }
  // Subnormal: shift up to `power` times, until it is normal.
  uint16_t new_exponent = 0;
  for (int shift = 0; shift < power; ++shift) {
    if (new_exponent > 0) {
      ++new_exponent;
    } else {
      mantissa <<= 1;
      if (mantissa & 0x400u) new_exponent = 1;
    }
  }
  return static_cast<uint16_t>(sign | (new_exponent << 10) | (mantissa & 0x3FFu));
}

// Row `lane` of the values of a block of 32 columns, from 16 bytes that pair columns i and i + 16 too.
void SetNibbles(const uint8_t* nibbles, int lane, uint8_t* block) {
  for (int i = 0; i < 16; ++i) block[i / 4 * 64 + lane * 4 + i % 4] = nibbles[i];
}

// Row `lane` of a block of 32 columns, from Q4_0 or Q4_1.
void PackNibbles(WeightType type, const uint8_t* source, int lane, uint8_t* block) {
  using Layout = NibblesLayout<false, false>;
  const uint16_t scale = LoadU16(source);
  const bool has_minimum = type == WeightType::kQ4_1;
  SetNibbles(source + (has_minimum ? 4 : 2), lane, block);
  uint8_t* const scales = block + Layout::kValueBytes + lane * 2;
  StoreU16(scale, scales);
  StoreU16(has_minimum ? LoadU16(source + 2) : TimesMinusPower(scale, 3), scales + Layout::kToMinima);
}

// Row `lane` of the values of a block of 32 columns, whose bytes are still zero for it.
void SetFiveBits(const uint8_t* values, int lane, uint8_t* block) {
  for (int i = 0; i < 16; ++i) {
    const int place = lane * 4 + i % 4;
    block[i / 4 * 64 + place] = static_cast<uint8_t>((values[i] & 0xF) | (values[i + 16] & 0xF) << 4);
    block[256 + place] |= static_cast<uint8_t>((values[i] >> 4 << (i / 4)) | (values[i + 16] >> 4 << (4 + i / 4)));
  }
}

// Row `lane` of a block of 32 columns, from Q5_0 or Q5_1.
void PackFiveBits(WeightType type, const uint8_t* source, int lane, uint8_t* block) {
  using Layout = NibblesLayout<true, false>;
  const uint16_t scale = LoadU16(source);
  const bool has_minimum = type == WeightType::kQ5_1;
  uint8_t values[32];
  UnpackFiveBits(source + (has_minimum ? 4 : 2), values);
  SetFiveBits(values, lane, block);
  uint8_t* const scales = block + Layout::kValueBytes + lane * 2;
  StoreU16(scale, scales);
  StoreU16(has_minimum ? LoadU16(source + 2) : TimesMinusPower(scale, 4), scales + Layout::kToMinima);
}

// Row `lane` of 8 blocks of 32 columns and what stands before them, from a superblock of Q4_K or Q5_K.
template <bool five_bits>
void PackScaled(const uint8_t* source, int lane, uint8_t* header) {
  using Layout = NibblesLayout<five_bits, true>;
  const ScaledBlock unpacked = five_bits ? UnpackQ5K(source) : UnpackQ4K(source);
  StoreU16(LoadU16(source), header + lane * 2);
  // Subtracted there, added here.
  StoreU16(LoadU16(source + 2) ^ 0x8000u, header + 2 * kPackedRows + lane * 2);
  uint8_t* block = header + Layout::kHeaderBytes;
  uint8_t* factors = header + Layout::kFactors + lane;
  for (int part = 0; part < 8; ++part, block += Layout::kBlockBytes, factors += Layout::kFactorBytes) {
    const uint8_t* values = unpacked.values + part * 32;
    if constexpr (five_bits) {
      SetFiveBits(values, lane, block);
    } else {
      for (int i = 0; i < 16; ++i) {
        block[i / 4 * 64 + lane * 4 + i % 4] = static_cast<uint8_t>(values[i] | values[i + 16] << 4);
      }
    }
    factors[0] = unpacked.scales[part];
    factors[Layout::kToMinima] = unpacked.minima[part];
  }
}

// Row `lane` of up to 8 blocks of 32 columns and what stands before them, from as many blocks of IQ4_NL (table) or
// Q8_0.
template <bool table>
void PackBytes(const uint8_t* source, int block_count, int lane, uint8_t* header) {
  using Layout = BytesLayout<table>;
  constexpr int kSourceBytes = 2 + (table ? 16 : 32);
  for (int part = 0; part < block_count; ++part, source += kSourceBytes) {
    uint8_t* const block = header + Layout::kHeaderBytes + part * Layout::kBlockBytes;
    if constexpr (table) {
      SetNibbles(source + 2, lane, block);
    } else {
      for (int i = 0; i < 32; ++i) block[i / 4 * 64 + lane * 4 + i % 4] = static_cast<uint8_t>(source[2 + i] + 128);
    }
    StoreU16(LoadU16(source), header + part * Layout::kScaleBytes + lane * 2);
  }
}

// Row `lane` of 16 blocks of 16 columns, from a superblock of Q6_K.
void PackSixBits(const uint8_t* source, int lane, uint8_t* block) {
  const Q6KBlock unpacked = UnpackQ6K(source);
  for (int part = 0; part < 16; ++part, block += SixBitsLayout::kBlockBytes) {
    for (int i = 0; i < 16; ++i) {
      block[i / 4 * 64 + lane * 4 + i % 4] = static_cast<uint8_t>(unpacked.values[part * 16 + i] + 32);
    }
    const float scale = unpacked.scale * static_cast<float>(unpacked.scales[part]);
    std::memcpy(block + 256 + lane * 4, &scale, sizeof(scale));
  }
}

}  // namespace

bool PackedMatrix::CanPack(WeightType type) {
  return type != WeightType::kF32 && type != WeightType::kF16 && type != WeightType::kBF16;
}

PackedMatrix::PackedMatrix(const WeightView& view, PackedForm form)
    : form_(form), rows_(view.rows), columns_(view.columns), group_bytes_(GroupBytes(form, view.columns)) {}

std::unique_ptr<PackedMatrix> PackedMatrix::Pack(const WeightView& view, HugeArena& arena) {
  std::unique_ptr<PackedMatrix> matrix(new PackedMatrix(view, FormOf(view.type)));
  const size_t size = static_cast<size_t>(matrix->group_count() * matrix->group_bytes_);
  matrix->data_ = reinterpret_cast<uint8_t*>(arena.Allocate(size));
  if (matrix->data_ == nullptr) return nullptr;
  for (int64_t group = 0; group < matrix->group_count(); ++group) matrix->PackGroup(view, group);
  return matrix;
}

void PackedMatrix::PackGroup(const WeightView& view, int64_t group) {
  uint8_t* const begin = data_ + group * group_bytes_;
  const WeightTypeInfo info = InfoOf(view.type);
  for (int lane = 0; lane < kPackedRows && group * kPackedRows + lane < rows_; ++lane) {
    const uint8_t* source = view.row(group * kPackedRows + lane);
    uint8_t* block = begin;
    int64_t taken = 0;  // columns
    for (int64_t column = 0; column < columns_;
         column += taken, source += taken / info.block_elements * info.block_bytes) {
      taken = info.block_elements;
      switch (form_) {
        case PackedForm::kNibbles:
          PackNibbles(view.type, source, lane, block);
          block += NibblesLayout<false, false>::Bytes(taken);
          break;
        case PackedForm::kFiveBits:
          PackFiveBits(view.type, source, lane, block);
          block += NibblesLayout<true, false>::Bytes(taken);
          break;
        case PackedForm::kScaledNibbles:
          PackScaled<false>(source, lane, block);
          block += NibblesLayout<false, true>::Bytes(taken);
          break;
        case PackedForm::kScaledFiveBits:
          PackScaled<true>(source, lane, block);
          block += NibblesLayout<true, true>::Bytes(taken);
          break;
        case PackedForm::kTableNibbles:
          taken = std::min<int64_t>(columns_ - column, kSharingBlocks * 32);
          PackBytes<true>(source, static_cast<int>(taken / 32), lane, block);
          block += BytesLayout<true>::Bytes(taken);
          break;
        case PackedForm::kBytes:
          taken = std::min<int64_t>(columns_ - column, kSharingBlocks * 32);
          PackBytes<false>(source, static_cast<int>(taken / 32), lane, block);
          block += BytesLayout<false>::Bytes(taken);
          break;
        case PackedForm::kSixBits:
          PackSixBits(source, lane, block);
          block += taken / 16 * SixBitsLayout::kBlockBytes;
          break;
      }
    }
  }
}

}  // namespace fermata::kernels
