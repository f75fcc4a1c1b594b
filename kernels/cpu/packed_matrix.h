// Quantised weights in the order in which vector instructions want them.

#ifndef FERMATA_KERNELS_CPU_PACKED_MATRIX_H_
#define FERMATA_KERNELS_CPU_PACKED_MATRIX_H_

#include <cstdint>
#include <memory>

#include "kernels/cpu/huge_pages.h"
#include "kernels/weight_type.h"

namespace fermata::kernels {

// Rows of a matrix that are multiplied together, one for each 32-bit lane of the widest vector: no sum over lanes is
// needed, and the sums of a row are made in the same order by every instruction set.
inline constexpr int kPackedRows = 16;

// The forms that products read. In all of them 16 rows by 4 columns of values are neighbours: byte 4 * r + c of 64.
// Every block begins with a cache line, and so does what stands before each 8 blocks of some forms.
enum class PackedForm {
  // 32 columns: 256 bytes, a nibble a value. Byte j of piece k (k = 0..3) holds columns 4k.. in its low nibble and
  // columns 16 + 4k.. in its high one. Then 16 f16 scales, 16 f16 minima: weight = scale * nibble + minimum. From Q4_0,
  // Q4_1.
  kNibbles,
  // As kNibbles, with 64 bytes of fifth bits after the nibbles: bit k of byte j is that of the low nibble of byte j of
  // piece k, bit 4 + k that of the high one. From Q5_0, Q5_1.
  kFiveBits,
  // As kNibbles and kFiveBits, but for the scales, which stand before each 8 blocks: 16 f16 scales and 16 f16 minima,
  // then, for each of the blocks, the 16 bytes that scale the ones, the 16 bytes that scale the others. From Q4_K,
  // Q5_K.
  kScaledNibbles,
  kScaledFiveBits,
  // Values as in kNibbles. Before each 8 blocks, or what is left at the end, 16 f16 scales for each of 8:
  // weight = scale * kIq4NlValues[nibble]. From IQ4_NL.
  kTableNibbles,
  // 32 columns: 512 bytes, offset by 128, with scales as in kTableNibbles: weight = scale * (byte - 128). From Q8_0.
  kBytes,
  // 16 columns: 256 bytes, offset by 32. Then 16 f32 scales: weight = scale * (byte - 32). From Q6_K.
  kSixBits,
};

// So many blocks share what stands before them, where there is such.
inline constexpr int kSharingBlocks = 8;

// Of the first four forms: what one looks like.
template <bool five_bits, bool scaled>
struct NibblesLayout {
  static constexpr int kValueBytes = five_bits ? 256 + 64 : 256;
  static constexpr int kBlockBytes = kValueBytes + (scaled ? 0 : 2 * kPackedRows * 2);
  // What stands before 8 blocks: first the f16 numbers, then from kFactors on kFactorBytes for each block.
  static constexpr int kFactors = 2 * kPackedRows * 2;
  static constexpr int kFactorBytes = 2 * kPackedRows;
  static constexpr int kHeaderBytes = scaled ? kFactors + kSharingBlocks * kFactorBytes : 0;
  // From a block's own scales, or from its factors, to the minima.
  static constexpr int kToMinima = kPackedRows * (scaled ? 1 : 2);

  static constexpr int64_t Bytes(int64_t columns) {
    return columns / 32 * kBlockBytes + (scaled ? columns / 256 * kHeaderBytes : 0);
  }
};

// Of kTableNibbles and kBytes.
template <bool table>
struct BytesLayout {
  static constexpr int kBlockBytes = table ? 256 : 512;
  static constexpr int kScaleBytes = kPackedRows * 2;  // of one block
  static constexpr int kHeaderBytes = kSharingBlocks * kScaleBytes;

  static constexpr int64_t Bytes(int64_t columns) {
    return columns / 32 * kBlockBytes + (columns + 255) / 256 * kHeaderBytes;
  }
};

// Of kSixBits.
struct SixBitsLayout {
  static constexpr int kBlockBytes = 256 + kPackedRows * 4;  // of 16 columns
};

// The packed copy: groups of 16 rows, and in each its column blocks. Rows beyond the last are zero.
class PackedMatrix {
 public:
  // True for the types that have a packed form.
  static bool CanPack(WeightType type);

  // Lies in `arena`, which must outlive it. Null if there is no memory. REQUIRES: CanPack(view.type), columns a
  // multiple of 32.
  static std::unique_ptr<PackedMatrix> Pack(const WeightView& view, HugeArena& arena);

  PackedForm form() const { return form_; }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  int64_t group_count() const { return (rows_ + kPackedRows - 1) / kPackedRows; }

  // The blocks of rows [16 * index, 16 * index + 16).
  const uint8_t* group(int64_t index) const { return data_ + index * group_bytes_; }

 private:
  PackedMatrix(const WeightView& view, PackedForm form);

  void PackGroup(const WeightView& view, int64_t group);

  PackedForm form_;
  int64_t rows_;
  int64_t columns_;
  int64_t group_bytes_;
  uint8_t* data_ = nullptr;
};

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_PACKED_MATRIX_H_
