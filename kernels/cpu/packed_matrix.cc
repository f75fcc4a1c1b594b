#include "kernels/cpu/packed_matrix.h"

#include <cstdlib>
#include <cstring>

#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/half.h"

namespace fermata::kernels {
namespace {

constexpr int kAlignment = 64;  // a cache line

PackedForm FormOf(WeightType type) {
  if (type == WeightType::kQ8_0) return PackedForm::kBytes;
  return type == WeightType::kQ6_K ? PackedForm::kSixBits : PackedForm::kNibbles;
}

int64_t GroupBytes(PackedForm form, int64_t columns) {
  switch (form) {
    case PackedForm::kNibbles:
      return columns / 32 * kNibblesBlockBytes;
    case PackedForm::kBytes:
      return columns / 32 * kBytesBlockBytes;
    case PackedForm::kSixBits:
      return columns / 16 * kSixBitsBlockBytes;
  }
  return 0;
}

void StoreU16(uint16_t value, uint8_t* bytes) { std::memcpy(bytes, &value, sizeof(value)); }

// -8 * the f16 `bits`, in f16. Exact but for overflow, which no sane scale reaches: a power of two.
uint16_t TimesMinusEight(uint16_t bits) {
  const uint16_t sign = (bits & 0x8000u) ^ 0x8000u;
  const uint16_t exponent = (bits >> 10) & 0x1Fu;
  uint16_t mantissa = bits & 0x3FFu;
  if (exponent == 0x1F) return sign | (bits & 0x7FFFu);
  if (exponent != 0) {
    return exponent + 3 >= 0x1F ? static_cast<uint16_t>(sign | 0x7C00u)
                                : static_cast<uint16_t>(sign | ((exponent + 3) << 10) | mantissa);
  }
  // Subnormal: shift up to three times, until it is normal.
  uint16_t new_exponent = 0;
  for (int shift = 0; shift < 3; ++shift) {
    if (new_exponent > 0) {
      ++new_exponent;
    } else {
      mantissa <<= 1;
      if (mantissa & 0x400u) new_exponent = 1;
    }
  }
  return static_cast<uint16_t>(sign | (new_exponent << 10) | (mantissa & 0x3FFu));
}

// Row `lane` of a block of 32 columns, from Q4_0 or Q4_1.
void PackNibbles(WeightType type, const uint8_t* source, int lane, uint8_t* block) {
  const uint16_t scale = LoadU16(source);
  const bool has_minimum = type == WeightType::kQ4_1;
  const uint8_t* nibbles = source + (has_minimum ? 4 : 2);
  // The source pairs columns i and i + 16 too.
  for (int i = 0; i < 16; ++i) block[i / 4 * 64 + lane * 4 + i % 4] = nibbles[i];
  StoreU16(scale, block + 256 + lane * 2);
  StoreU16(has_minimum ? LoadU16(source + 2) : TimesMinusEight(scale), block + 256 + 2 * kPackedRows + lane * 2);
}

// Row `lane` of a block of 32 columns, from Q8_0.
void PackBytes(const uint8_t* source, int lane, uint8_t* block) {
  for (int i = 0; i < 32; ++i) block[i / 4 * 64 + lane * 4 + i % 4] = static_cast<uint8_t>(source[2 + i] + 128);
  StoreU16(LoadU16(source), block + 512 + lane * 2);
}

// Row `lane` of 16 blocks of 16 columns, from a superblock of Q6_K.
void PackSixBits(const uint8_t* source, int lane, uint8_t* block) {
  const Q6KBlock unpacked = UnpackQ6K(source);
  for (int part = 0; part < 16; ++part, block += kSixBitsBlockBytes) {
    for (int i = 0; i < 16; ++i) {
      block[i / 4 * 64 + lane * 4 + i % 4] = static_cast<uint8_t>(unpacked.values[part * 16 + i] + 32);
    }
    const float scale = unpacked.scale * static_cast<float>(unpacked.scales[part]);
    std::memcpy(block + 256 + lane * 4, &scale, sizeof(scale));
  }
}

}  // namespace

void PackedMatrix::FreeDeleter::operator()(uint8_t* data) const { std::free(data); }

bool PackedMatrix::CanPack(WeightType type) {
  return type == WeightType::kQ4_0 || type == WeightType::kQ4_1 || type == WeightType::kQ8_0 ||
         type == WeightType::kQ6_K;
}

PackedMatrix::PackedMatrix(const WeightView& view, PackedForm form)
    : form_(form), rows_(view.rows), columns_(view.columns), group_bytes_(GroupBytes(form, view.columns)) {}

std::unique_ptr<PackedMatrix> PackedMatrix::Pack(const WeightView& view) {
  std::unique_ptr<PackedMatrix> matrix(new PackedMatrix(view, FormOf(view.type)));
  const size_t size = static_cast<size_t>(matrix->group_count() * matrix->group_bytes_);
  const size_t rounded = (size + kAlignment - 1) / kAlignment * kAlignment;
  matrix->data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kAlignment, rounded)));
  if (matrix->data_ == nullptr) return nullptr;
  for (int64_t group = 0; group < matrix->group_count(); ++group) matrix->PackGroup(view, group);
  return matrix;
}

void PackedMatrix::PackGroup(const WeightView& view, int64_t group) {
  uint8_t* const begin = data_.get() + group * group_bytes_;
  std::memset(begin, 0, group_bytes_);
  const WeightTypeInfo info = InfoOf(view.type);
  for (int lane = 0; lane < kPackedRows && group * kPackedRows + lane < rows_; ++lane) {
    const uint8_t* source = view.row(group * kPackedRows + lane);
    uint8_t* block = begin;
    for (int64_t column = 0; column < columns_; column += info.block_elements, source += info.block_bytes) {
      switch (form_) {
        case PackedForm::kNibbles:
          PackNibbles(view.type, source, lane, block);
          block += kNibblesBlockBytes;
          break;
        case PackedForm::kBytes:
          PackBytes(source, lane, block);
          block += kBytesBlockBytes;
          break;
        case PackedForm::kSixBits:
          PackSixBits(source, lane, block);
          block += 16 * kSixBitsBlockBytes;
          break;
      }
    }
  }
}

}  // namespace fermata::kernels
