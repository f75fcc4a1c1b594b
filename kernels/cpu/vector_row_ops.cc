// Highway compiles this file once for each instruction set and chooses among them at run time.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "kernels/cpu/half.h"
#include "kernels/cpu/row_ops.h"

#if defined(__aarch64__)
// NEON alone: vectors whose size is known only when they are used cannot stand in arrays.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/vector_row_ops.cc"
// The order matters: foreach_target.h includes this file again for each target.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace fermata::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Loops over sums that are to stay in registers.
#ifndef FERMATA_UNROLL
#define FERMATA_UNROLL _Pragma("GCC unroll 12")
#endif

// At most 8 lanes and two chains, whatever the machine has: so a row's bits are the same on AVX2 and AVX-512.
using Tag = hn::CappedTag<float, 8>;

HWY_INLINE float DotInline(const float* a, const float* b, int64_t size) {
  const Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto even = hn::Zero(d);
  auto odd = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= size; i += 2 * lanes) {
    even = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), even);
    odd = hn::MulAdd(hn::LoadU(d, a + i + lanes), hn::LoadU(d, b + i + lanes), odd);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
  for (; i < size; ++i) sum += a[i] * b[i];
  return sum;
}

float Dot(const float* a, const float* b, int64_t size) { return DotInline(a, b, size); }

void RmsNorm(const float* x, const float* weight, float epsilon, int32_t size, float* output) {
  const Tag d;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  const float scale = 1.0f / std::sqrt(DotInline(x, x, size) / static_cast<float>(size) + epsilon);
  const auto factor = hn::Set(d, scale);
  int32_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, x + i), factor), hn::LoadU(d, weight + i)), d, output + i);
  }
  for (; i < size; ++i) output[i] = x[i] * scale * weight[i];
}

// Where a sum is one chain for each element, the width of a vector changes no bit.
using Wide = hn::ScalableTag<float>;

// silu(gate[i]) * up[i] for as many as vectors of D hold; returns how many are done.
template <typename D>
HWY_INLINE int32_t SwiGluPart(D d, const float* up, int32_t begin, int32_t size, float* gate) {
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  const auto one = hn::Set(d, 1.0f);
  int32_t i = begin;
  for (; i + lanes <= size; i += lanes) {
    const auto g = hn::LoadU(d, gate + i);
    const auto silu = hn::Div(g, hn::Add(one, hn::Exp(d, hn::Neg(g))));
    hn::StoreU(hn::Mul(silu, hn::LoadU(d, up + i)), d, gate + i);
  }
  return i;
}

void SwiGlu(const float* up, int32_t size, float* gate) {
  // What is left is done by the narrow ones on every machine, and then one by one.
  int32_t i = SwiGluPart(Wide(), up, 0, size, gate);
  i = SwiGluPart(Tag(), up, i, size, gate);
  for (; i < size; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

void Add(const float* y, int64_t size, float* x) {
  const Wide d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= size; i += lanes) hn::StoreU(hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, x + i);
  for (; i < size; ++i) x[i] += y[i];
}

void Rotate(const Turn* turns, int32_t head_count, int32_t head_size, float* heads) {
  int32_t pair = 0;
#if HWY_TARGET != HWY_SCALAR
  // Two turns: the cosines of both, then their sines.
  const hn::CappedTag<float, 4> d;
  for (; 2 * pair + 4 <= head_size; pair += 2) {
    const auto first = hn::LoadU(d, turns[pair].cosines);
    const auto second = hn::LoadU(d, turns[pair + 1].cosines);
    const auto cosines = hn::ConcatLowerLower(d, second, first);
    const auto sines = hn::ConcatUpperUpper(d, second, first);
    for (int32_t h = 0; h < head_count; ++h) {
      float* place = heads + int64_t{h} * head_size + 2 * pair;
      const auto x = hn::LoadU(d, place);
      hn::StoreU(hn::MulAdd(x, cosines, hn::Mul(hn::Shuffle2301(x), sines)), d, place);
    }
  }
#endif
  for (; pair < head_size / 2; ++pair) {
    for (int32_t h = 0; h < head_count; ++h) {
      float* place = heads + int64_t{h} * head_size + 2 * pair;
      const float x = place[0];
      const float y = place[1];
      place[0] = std::fma(x, turns[pair].cosines[0], y * turns[pair].sines[0]);
      place[1] = std::fma(y, turns[pair].cosines[1], x * turns[pair].sines[1]);
    }
  }
}

void Convert(const float* x, int32_t size, KvType type, std::byte* output) {
  if (type == KvType::kF32) {
    std::copy_n(x, size, reinterpret_cast<float*>(output));
    return;
  }
  uint16_t* const halves = reinterpret_cast<uint16_t*>(output);
  int32_t i = 0;
  if (type == KvType::kF16) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_NEON
    // Elsewhere Highway may round otherwise.
    const Wide d;
    const hn::Rebind<hwy::float16_t, Wide> dh;
    const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
    for (; i + lanes <= size; i += lanes) {
      hn::StoreU(hn::DemoteTo(dh, hn::LoadU(d, x + i)), dh, reinterpret_cast<hwy::float16_t*>(halves + i));
    }
#endif
    for (; i < size; ++i) halves[i] = FloatToF16(x[i]);
    return;
  }
  for (; i < size; ++i) halves[i] = FloatToBf16(x[i]);
}

// Elements of the cache as float32.
HWY_INLINE hn::Vec<Wide> LoadKv(const float* elements) { return hn::LoadU(Wide(), elements); }
template <typename Half>
HWY_INLINE hn::Vec<Wide> LoadKv(const Half* elements) {
  return hn::PromoteTo(Wide(), hn::LoadU(hn::Rebind<Half, Wide>(), elements));
}

HWY_INLINE float OneKv(const float* element) { return *element; }
HWY_INLINE float OneKv(const hwy::float16_t* element) {
  return F16ToFloat(LoadU16(reinterpret_cast<const uint8_t*>(element)));
}
HWY_INLINE float OneKv(const hwy::bfloat16_t* element) {
  return Bf16ToFloat(LoadU16(reinterpret_cast<const uint8_t*>(element)));
}

// scores[p] = exp(scores[p] - largest) for the largest of them; `result` gets that and the sum. Sixteen sums whatever a
// vector holds. Writes over up to 15 scores beyond the last.
HWY_INLINE void Exponentiate(int32_t count, float* scores, SpanResult& result) {
  constexpr int32_t kSums = 16;
  const hn::CappedTag<float, kSums> d;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  const int32_t whole = (count + kSums - 1) / kSums * kSums;
  // What weighs nothing.
  for (int32_t p = count; p < whole; ++p) scores[p] = -INFINITY;
  auto most = hn::Set(d, -INFINITY);
  for (int32_t p = 0; p < whole; p += lanes) most = hn::Max(most, hn::LoadU(d, scores + p));
  const float largest = hn::GetLane(hn::MaxOfLanes(d, most));
  HWY_ALIGN float sums[kSums] = {};
  const auto maximum = hn::Set(d, largest);
  for (int32_t p = 0; p < whole; p += kSums) {
    for (int32_t i = 0; i < kSums; i += lanes) {
      const auto weight = hn::Exp(d, hn::Sub(hn::LoadU(d, scores + p + i), maximum));
      hn::StoreU(weight, d, scores + p + i);
      hn::Store(hn::Add(hn::Load(d, sums + i), weight), d, sums + i);
    }
  }
  for (int32_t half = kSums / 2; half > 0; half /= 2) {
    for (int32_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  result.largest = largest;
  result.weight_sum = sums[0];
}

// Whether there are 32 registers, and not 16.
constexpr bool kManyRegisters = HWY_TARGET <= HWY_AVX3;

// So many queries at once as leave registers for their sums.
constexpr int kMostAtOnce = kManyRegisters ? kQueryTile : 4;

// The queries of a tile. Many are put side by side, so that one pointer is enough for all.
template <int kQueries>
struct QueryRows {
  static constexpr bool kSideBySide = kQueries > 4;

  QueryRows(const AttentionTile& tile, int32_t head_size, float* scratch) {
    if constexpr (kSideBySide) {
      for (int q = 0; q < kQueries; ++q) {
        for (int32_t i = 0; i < head_size; ++i) scratch[i * kQueries + q] = tile.queries[q][i];
      }
      rows[0] = scratch;
    } else {
      FERMATA_UNROLL
      for (int q = 0; q < kQueries; ++q) rows[q] = tile.queries[q];
    }
  }

  HWY_INLINE float At(int q, int32_t i) const {
    if constexpr (kSideBySide) return rows[0][i * kQueries + q];
    return rows[q][i];
  }

  const float* rows[kSideBySide ? 1 : kQueries];
};

// Scores of the slots [first, first + count) of a block, query q's from scores + q * kScoreStride on; may write beyond
// the last. Two chains for each score: even elements and odd ones.
template <int kQueries, typename T>
HWY_INLINE void ScoreSlots(const QueryRows<kQueries>& queries, const T* keys, int32_t block_tokens, int32_t head_size,
                           int32_t first, int32_t count, float scale, float* scores) {
  const Wide d;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  int32_t slot = first;
  for (; slot < first + count && slot + lanes <= block_tokens; slot += lanes) {
    hn::Vec<Wide> even[kQueries];
    hn::Vec<Wide> odd[kQueries];
    FERMATA_UNROLL
    for (int q = 0; q < kQueries; ++q) even[q] = odd[q] = hn::Zero(d);
    const T* key = keys + slot;
    int32_t i = 0;
    for (; i + 2 <= head_size; i += 2, key += 2 * int64_t{block_tokens}) {
      const auto k0 = LoadKv(key);
      const auto k1 = LoadKv(key + block_tokens);
      FERMATA_UNROLL
      for (int q = 0; q < kQueries; ++q) {
        even[q] = hn::MulAdd(hn::Set(d, queries.At(q, i)), k0, even[q]);
        odd[q] = hn::MulAdd(hn::Set(d, queries.At(q, i + 1)), k1, odd[q]);
      }
    }
    if (i < head_size) {
      const auto k0 = LoadKv(key);
      FERMATA_UNROLL
      for (int q = 0; q < kQueries; ++q) even[q] = hn::MulAdd(hn::Set(d, queries.At(q, i)), k0, even[q]);
    }
    FERMATA_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      hn::StoreU(hn::Mul(hn::Add(even[q], odd[q]), hn::Set(d, scale)), d, scores + q * kScoreStride + slot - first);
    }
  }
  for (; slot < first + count; ++slot) {
    for (int q = 0; q < kQueries; ++q) {
      float sums[2] = {};
      for (int32_t i = 0; i < head_size; ++i) {
        const float key = OneKv(keys + int64_t{i} * block_tokens + slot);
        sums[i % 2] = std::fma(queries.At(q, i), key, sums[i % 2]);
      }
      scores[q * kScoreStride + slot - first] = (sums[0] + sums[1]) * scale;
    }
  }
}

// Asks for what a head has in the block of position p, if that is before `end`. Memory's own foresight ends with each
// page, and blocks lie anywhere.
HWY_INLINE void Foresee(const PagedHead& head, const std::byte* base, int32_t p, int32_t end) {
  if (p >= end) return;
  const std::byte* const block = base + head.blocks[p / head.block_tokens] * head.block_stride;
  const int64_t bytes = int64_t{head.block_tokens} * head.head_size * BytesOf(head.type);
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(block + at);
}

constexpr int32_t kBlocksAhead = 2;

// Positions [begin, end) of a context, and where their scores are: as ScoreSlots() wrote them, of `begin` first.
struct Positions {
  int32_t begin;
  int32_t end;
  const float* weights;
};

// outputs[q][i] += weight of q * value[i], position after position, for as many i from `column` on as kVectors at a
// time make; returns the next i.
template <int kQueries, int kVectors, typename T>
HWY_INLINE int32_t AddColumns(const PagedHead& head, const Positions& positions, int32_t column,
                              float* const* outputs) {
  const Wide d;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  for (; column + kVectors * lanes <= head.head_size; column += kVectors * lanes) {
    hn::Vec<Wide> sums[kQueries * kVectors];
    FERMATA_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      FERMATA_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[q * kVectors + v] = hn::LoadU(d, outputs[q] + column + v * lanes);
    }
    const float* weights = positions.weights;
    for (int32_t p = positions.begin; p < positions.end;) {
      if (column == 0) Foresee(head, head.values, p + kBlocksAhead * head.block_tokens, positions.end);
      const int32_t slot = p % head.block_tokens;
      const int32_t count = std::min(head.block_tokens - slot, positions.end - p);
      const std::byte* const block = head.values + head.blocks[p / head.block_tokens] * head.block_stride;
      const T* value = reinterpret_cast<const T*>(block) + int64_t{slot} * head.head_size + column;
      for (int32_t i = 0; i < count; ++i, value += head.head_size, ++weights) {
        hn::Vec<Wide> values[kVectors];
        FERMATA_UNROLL
        for (int v = 0; v < kVectors; ++v) values[v] = LoadKv(value + v * lanes);
        FERMATA_UNROLL
        for (int q = 0; q < kQueries; ++q) {
          const auto weight = hn::Set(d, weights[q * kScoreStride]);
          FERMATA_UNROLL
          for (int v = 0; v < kVectors; ++v) {
            sums[q * kVectors + v] = hn::MulAdd(weight, values[v], sums[q * kVectors + v]);
          }
        }
      }
      p += count;
    }
    FERMATA_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      FERMATA_UNROLL
      for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[q * kVectors + v], d, outputs[q] + column + v * lanes);
    }
  }
  return column;
}

template <int kQueries, typename T>
HWY_INLINE void AddValues(const PagedHead& head, const Positions& positions, float* const* outputs) {
  int32_t column = 0;
  if constexpr (kManyRegisters && kQueries <= 4) column = AddColumns<kQueries, 4, T>(head, positions, 0, outputs);
  column = AddColumns<kQueries, 2, T>(head, positions, column, outputs);
  for (; column < head.head_size; ++column) {
    for (int32_t p = positions.begin; p < positions.end; ++p) {
      const std::byte* const block = head.values + head.blocks[p / head.block_tokens] * head.block_stride;
      const int64_t place = int64_t{p % head.block_tokens} * head.head_size + column;
      const float value = OneKv(reinterpret_cast<const T*>(block) + place);
      for (int q = 0; q < kQueries; ++q) {
        const float weight = positions.weights[q * kScoreStride + p - positions.begin];
        outputs[q][column] = std::fma(weight, value, outputs[q][column]);
      }
    }
  }
}

template <int kQueries, typename T>
void AttentionTileOf(const AttentionTile& tile, const PagedHead& head, float scale, float* scores) {
  const int32_t ahead = kBlocksAhead * head.block_tokens;
  float* outputs[kQueries];
  const QueryRows<kQueries> queries(tile, head.head_size, scores + kQueryTile * kScoreStride);
  for (int q = 0; q < kQueries; ++q) {
    outputs[q] = tile.results[q]->values();
    std::fill_n(outputs[q], head.head_size, 0.0f);
  }
  const int32_t most = *std::max_element(tile.ends, tile.ends + kQueries);
  for (int32_t p = tile.begin; p < most;) {
    Foresee(head, head.keys, p + ahead, most);
    const int32_t slot = p % head.block_tokens;
    const int32_t count = std::min(head.block_tokens - slot, most - p);
    const std::byte* const block = head.keys + head.blocks[p / head.block_tokens] * head.block_stride;
    ScoreSlots<kQueries>(queries, reinterpret_cast<const T*>(block), head.block_tokens, head.head_size, slot, count,
                         scale, scores + p - tile.begin);
    p += count;
  }
  for (int32_t block = 0; block < kBlocksAhead; ++block) {
    Foresee(head, head.values, tile.begin + block * head.block_tokens, most);
  }
  for (int q = 0; q < kQueries; ++q) {
    Exponentiate(tile.ends[q] - tile.begin, scores + q * kScoreStride, *tile.results[q]);
  }
  // What all of them see, and then, for each alone, what the others do not.
  const int32_t least = *std::min_element(tile.ends, tile.ends + kQueries);
  AddValues<kQueries, T>(head, {tile.begin, least, scores}, outputs);
  for (int q = 0; q < kQueries; ++q) {
    if (tile.ends[q] == least) continue;
    const float* const weights = scores + q * kScoreStride + least - tile.begin;
    AddValues<1, T>(head, {least, tile.ends[q], weights}, &outputs[q]);
  }
}

// The largest count not above `count` that has code of its own: few, for each is compiled for many machines.
HWY_INLINE int QueriesAtOnce(int count) { return count >= kMostAtOnce ? kMostAtOnce : std::min(count, 4); }

template <typename T>
void AttentionOf(const AttentionTile& tile, const PagedHead& head, float scale, float* scratch) {
  AttentionTile part = {};
  part.begin = tile.begin;
  for (int q = 0; q < tile.query_count; q += part.query_count) {
    part.query_count = QueriesAtOnce(tile.query_count - q);
    for (int i = 0; i < part.query_count; ++i) {
      part.queries[i] = tile.queries[q + i];
      part.ends[i] = tile.ends[q + i];
      part.results[i] = tile.results[q + i];
    }
    switch (part.query_count) {
      case 1:
        AttentionTileOf<1, T>(part, head, scale, scratch);
        break;
      case 2:
        AttentionTileOf<2, T>(part, head, scale, scratch);
        break;
      case 3:
        AttentionTileOf<3, T>(part, head, scale, scratch);
        break;
      case 4:
        AttentionTileOf<4, T>(part, head, scale, scratch);
        break;
      default:
        static_assert(kQueryTile == 12);
        if constexpr (kMostAtOnce >= 12) AttentionTileOf<12, T>(part, head, scale, scratch);
    }
  }
}

void Attention(const AttentionTile& tile, const PagedHead& head, float scale, float* scratch) {
  switch (head.type) {
    case KvType::kF32:
      return AttentionOf<float>(tile, head, scale, scratch);
    case KvType::kF16:
      return AttentionOf<hwy::float16_t>(tile, head, scale, scratch);
    case KvType::kBF16:
      return AttentionOf<hwy::bfloat16_t>(tile, head, scale, scratch);
  }
}

// The largest of every fourth lane, into 4 places; in fewer, if there are fewer lanes.
template <typename D>
HWY_INLINE void StoreMaxima(D d, hn::Vec<D> v, int32_t* maxima) {
#if HWY_TARGET == HWY_SCALAR
  hn::StoreU(v, d, maxima);
#else
  if constexpr (hn::MaxLanes(d) > 4) {
    const hn::Half<D> half;
    StoreMaxima(half, hn::Max(hn::LowerHalf(half, v), hn::UpperHalf(half, v)), maxima);
  } else {
    hn::StoreU(v, d, maxima);
  }
#endif
}

// Up to kBlocks blocks at a time: first the largest of each, then what follows from it for all, then the values.
struct QuantizePiece {
  static constexpr int kBlocks = 64;
  static constexpr int32_t kInfinity = 0x7F800000;

  float scales[kBlocks];
  float inverses[kBlocks];

  // False if an element is no finite number.
  bool Measure(const float* x, int64_t count) {
    const hn::CappedTag<float, 16> d;
    const hn::Rebind<int32_t, decltype(d)> di;
    const int lanes = static_cast<int>(hn::Lanes(d));
    int32_t maxima[kBlocks * 4] = {};
    for (int64_t b = 0; b < count; ++b, x += kActivationBlock) {
      // Magnitudes have the order of their bits, and whatever is no finite number is above all that are.
      auto largest = hn::Zero(di);
      for (int i = 0; i < kActivationBlock; i += lanes) {
        largest = hn::Max(largest, hn::BitCast(di, hn::Abs(hn::LoadU(d, x + i))));
      }
      StoreMaxima(di, largest, maxima + b * 4);
    }
    int32_t most = 0;
    for (int64_t b = 0; b < count; ++b) {
      const int32_t* of_block = maxima + b * 4;
      const int32_t bits = std::max(std::max(of_block[0], of_block[1]), std::max(of_block[2], of_block[3]));
      most = std::max(most, bits);
      std::memcpy(&scales[b], &bits, sizeof(float));
    }
    for (int64_t b = 0; b < count; ++b) {
      const float largest = scales[b];
      scales[b] = largest / 127.0f;
      inverses[b] = largest > 0.0f ? 127.0f / largest : 0.0f;
    }
    return most < kInfinity;
  }

  void Round(const float* x, int64_t row, int64_t first, int64_t count, QuantizedRows& rows) const {
    const hn::CappedTag<float, 16> d;
    const hn::Rebind<int8_t, decltype(d)> d8;
    const int lanes = static_cast<int>(hn::Lanes(d));
    for (int64_t b = 0; b < count; ++b, x += kActivationBlock) {
      int8_t* const values = rows.row_values(row, first + b);
      const auto inverse = hn::Set(d, inverses[b]);
      for (int i = 0; i < kActivationBlock; i += lanes) {
        const auto whole = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), inverse));
        hn::StoreU(hn::DemoteTo(d8, whole), d8, values + i);
      }
      ActivationBlock& block = rows.row_block(row, first + b);
      block.scale = scales[b];
      SumHalves(values, block.sums);
      block.scaled_sum = block.scale * static_cast<float>(block.sums[0] + block.sums[1]);
    }
  }

  static HWY_INLINE void SumHalves(const int8_t* values, int32_t* sums) {
#if HWY_TARGET == HWY_SCALAR
    sums[0] = sums[1] = 0;
    for (int i = 0; i < kActivationBlock; ++i) sums[i / 16] += values[i];
#else
    // Sums of eight, of values made positive by 128.
    const hn::Full128<uint8_t> d;
    for (int half = 0; half < 2; ++half) {
      const auto bytes = hn::LoadU(d, reinterpret_cast<const uint8_t*>(values) + half * 16);
      const auto eights = hn::SumsOf8(hn::Xor(bytes, hn::Set(d, 0x80)));
      const hn::Full128<uint64_t> d64;
      const uint64_t sum = hn::GetLane(eights) + hn::GetLane(hn::UpperHalf(hn::Half<decltype(d64)>(), eights));
      sums[half] = static_cast<int32_t>(sum) - 16 * 128;
    }
#endif
  }
};

void Quantize(const float* x, int64_t row, int64_t first, int64_t count, QuantizedRows& rows) {
  QuantizePiece piece;
  for (; count > 0; first += QuantizePiece::kBlocks, count -= QuantizePiece::kBlocks) {
    const int64_t blocks = std::min<int64_t>(count, QuantizePiece::kBlocks);
    if (piece.Measure(x, blocks)) {
      piece.Round(x, row, first, blocks, rows);
    } else {
      QuantizeBlocks(x, row, first, blocks, rows);
    }
    x += blocks * kActivationBlock;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fermata::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace fermata::kernels {

HWY_EXPORT(Dot);
HWY_EXPORT(RmsNorm);
HWY_EXPORT(SwiGlu);
HWY_EXPORT(Attention);
HWY_EXPORT(Quantize);
HWY_EXPORT(Add);
HWY_EXPORT(Rotate);
HWY_EXPORT(Convert);

namespace {

// The target is Highway's own global; nobody else here chooses one.
RowOps OpsOf(int64_t targets) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  hwy::GetChosenTarget().Update(targets);
  return RowOps{&HWY_DYNAMIC_DISPATCH(RmsNorm),  &HWY_DYNAMIC_DISPATCH(SwiGlu), &HWY_DYNAMIC_DISPATCH(Attention),
                &HWY_DYNAMIC_DISPATCH(Quantize), &HWY_DYNAMIC_DISPATCH(Dot),    &HWY_DYNAMIC_DISPATCH(Add),
                &HWY_DYNAMIC_DISPATCH(Rotate),   &HWY_DYNAMIC_DISPATCH(Convert)};
}

}  // namespace

const RowOps& VectorRowOps(bool avx512) {
  static const RowOps widest = OpsOf(hwy::SupportedTargets());
#if defined(__x86_64__)
  // Better targets have lower bits.
  static const RowOps at_most_avx2 = OpsOf(hwy::SupportedTargets() & ~int64_t{HWY_AVX2 - 1});
  return avx512 ? widest : at_most_avx2;
#else
  return widest;
#endif
}

}  // namespace fermata::kernels

#endif  // HWY_ONCE
