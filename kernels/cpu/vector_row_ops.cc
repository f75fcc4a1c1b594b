// Highway compiles this file once for each instruction set and chooses among them at run time.

#include <algorithm>
#include <cmath>
#include <limits>
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

void SwiGlu(const float* up, int32_t size, float* gate) {
  const Tag d;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  const auto one = hn::Set(d, 1.0f);
  int32_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    const auto g = hn::LoadU(d, gate + i);
    const auto silu = hn::Div(g, hn::Add(one, hn::CallExp(d, hn::Neg(g))));
    hn::StoreU(hn::Mul(silu, hn::LoadU(d, up + i)), d, gate + i);
  }
  for (; i < size; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

// Where a sum is one chain for each element, the width of a vector changes no bit.
using Wide = hn::ScalableTag<float>;

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
// vector holds.
HWY_INLINE void Exponentiate(int32_t count, float* scores, SpanResult& result) {
  constexpr int32_t kSums = 16;
  const hn::CappedTag<float, kSums> d;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  auto most = hn::Set(d, -INFINITY);
  int32_t p = 0;
  for (; p + lanes <= count; p += lanes) most = hn::Max(most, hn::LoadU(d, scores + p));
  float largest = hn::GetLane(hn::MaxOfLanes(d, most));
  for (; p < count; ++p) largest = std::max(largest, scores[p]);
  HWY_ALIGN float sums[kSums] = {};
  const auto maximum = hn::Set(d, largest);
  for (p = 0; p + kSums <= count; p += kSums) {
    for (int32_t i = 0; i < kSums; i += lanes) {
      const auto weight = hn::CallExp(d, hn::Sub(hn::LoadU(d, scores + p + i), maximum));
      hn::StoreU(weight, d, scores + p + i);
      hn::Store(hn::Add(hn::Load(d, sums + i), weight), d, sums + i);
    }
  }
  for (int32_t i = 0; p < count; ++p, ++i) {
    scores[p] = std::exp(scores[p] - largest);
    sums[i] += scores[p];
  }
  for (int32_t half = kSums / 2; half > 0; half /= 2) {
    for (int32_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  result.largest = largest;
  result.weight_sum = sums[0];
}

// scores[q][p] for the slots [first, first + count) of a block; may write beyond the last. Two chains for each score:
// even elements and odd ones.
template <int kQueries, typename T>
HWY_INLINE void ScoreSlots(const AttentionTile& tile, const T* keys, int32_t block_tokens, int32_t head_size,
                           int32_t first, int32_t count, float scale, float* const* scores) {
  const Wide d;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  const float* queries[kQueries];
  for (int q = 0; q < kQueries; ++q) queries[q] = tile.queries[q];
  int32_t slot = first;
  for (; slot < first + count && slot + lanes <= block_tokens; slot += lanes) {
    hn::Vec<Wide> even[kQueries];
    hn::Vec<Wide> odd[kQueries];
    for (int q = 0; q < kQueries; ++q) even[q] = odd[q] = hn::Zero(d);
    const T* key = keys + slot;
    int32_t i = 0;
    for (; i + 2 <= head_size; i += 2, key += 2 * int64_t{block_tokens}) {
      const auto k0 = LoadKv(key);
      const auto k1 = LoadKv(key + block_tokens);
      for (int q = 0; q < kQueries; ++q) {
        even[q] = hn::MulAdd(hn::Set(d, queries[q][i]), k0, even[q]);
        odd[q] = hn::MulAdd(hn::Set(d, queries[q][i + 1]), k1, odd[q]);
      }
    }
    if (i < head_size) {
      const auto k0 = LoadKv(key);
      for (int q = 0; q < kQueries; ++q) even[q] = hn::MulAdd(hn::Set(d, queries[q][i]), k0, even[q]);
    }
    for (int q = 0; q < kQueries; ++q) {
      hn::StoreU(hn::Mul(hn::Add(even[q], odd[q]), hn::Set(d, scale)), d, scores[q] + slot - first);
    }
  }
  for (; slot < first + count; ++slot) {
    for (int q = 0; q < kQueries; ++q) {
      float sums[2] = {};
      for (int32_t i = 0; i < head_size; ++i) {
        sums[i % 2] = std::fma(queries[q][i], OneKv(keys + int64_t{i} * block_tokens + slot), sums[i % 2]);
      }
      scores[q][slot - first] = (sums[0] + sums[1]) * scale;
    }
  }
}

// output[q][i] += weights[q][0] * values[0][i] + ..., position after position.
template <int kQueries, typename T>
HWY_INLINE void AddValues(const float* const* weights, const T* values, int32_t count, int32_t head_size,
                          float* const* outputs) {
  const Wide d;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  int32_t i = 0;
  // Two vectors at a time, so that chains are enough for every unit.
  for (; i + 2 * lanes <= head_size; i += 2 * lanes) {
    hn::Vec<Wide> low[kQueries];
    hn::Vec<Wide> high[kQueries];
    for (int q = 0; q < kQueries; ++q) {
      low[q] = hn::LoadU(d, outputs[q] + i);
      high[q] = hn::LoadU(d, outputs[q] + i + lanes);
    }
    const T* value = values + i;
    for (int32_t p = 0; p < count; ++p, value += head_size) {
      const auto v0 = LoadKv(value);
      const auto v1 = LoadKv(value + lanes);
      for (int q = 0; q < kQueries; ++q) {
        const auto weight = hn::Set(d, weights[q][p]);
        low[q] = hn::MulAdd(weight, v0, low[q]);
        high[q] = hn::MulAdd(weight, v1, high[q]);
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      hn::StoreU(low[q], d, outputs[q] + i);
      hn::StoreU(high[q], d, outputs[q] + i + lanes);
    }
  }
  for (; i < head_size; ++i) {
    for (int q = 0; q < kQueries; ++q) {
      for (int32_t p = 0; p < count; ++p) {
        outputs[q][i] = std::fma(weights[q][p], OneKv(values + int64_t{p} * head_size + i), outputs[q][i]);
      }
    }
  }
}

// Calls body(offset of the block, first slot, count, position after begin) for the pieces of [begin, end) that lie in
// one block each.
template <typename Body>
HWY_INLINE void ForBlocks(const PagedHead& head, int32_t begin, int32_t end, Body body) {
  for (int32_t p = begin; p < end;) {
    const int32_t slot = p % head.block_tokens;
    const int32_t count = std::min(head.block_tokens - slot, end - p);
    body(head.blocks[p / head.block_tokens] * head.block_stride, slot, count, p - begin);
    p += count;
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

template <int kQueries, typename T>
void AttentionTileOf(const AttentionTile& tile, const PagedHead& head, float scale, float* scratch) {
  constexpr int32_t kAhead = 2;  // blocks
  const int32_t ahead = kAhead * head.block_tokens;
  float* scores[kQueries];
  float* outputs[kQueries];
  for (int q = 0; q < kQueries; ++q) {
    scores[q] = scratch + q * (kAttentionScratch / kQueryTile);
    outputs[q] = tile.results[q]->values();
    std::fill_n(outputs[q], head.head_size, 0.0f);
  }
  const int32_t most = *std::max_element(tile.ends, tile.ends + kQueries);
  ForBlocks(head, tile.begin, most, [&](int64_t block, int32_t slot, int32_t count, int32_t at) {
    Foresee(head, head.keys, tile.begin + at + ahead, most);
    float* places[kQueries];
    for (int q = 0; q < kQueries; ++q) places[q] = scores[q] + at;
    ScoreSlots<kQueries>(tile, reinterpret_cast<const T*>(head.keys + block), head.block_tokens, head.head_size, slot,
                         count, scale, places);
  });
  for (int32_t block = 0; block < kAhead; ++block) {
    Foresee(head, head.values, tile.begin + block * head.block_tokens, most);
  }
  for (int q = 0; q < kQueries; ++q) Exponentiate(tile.ends[q] - tile.begin, scores[q], *tile.results[q]);
  const auto values = [&](int64_t block, int32_t slot) {
    return reinterpret_cast<const T*>(head.values + block) + int64_t{slot} * head.head_size;
  };
  // What all of them see, and then, for each alone, what the others do not.
  const int32_t least = *std::min_element(tile.ends, tile.ends + kQueries);
  ForBlocks(head, tile.begin, least, [&](int64_t block, int32_t slot, int32_t count, int32_t at) {
    Foresee(head, head.values, tile.begin + at + ahead, most);
    const float* weights[kQueries];
    for (int q = 0; q < kQueries; ++q) weights[q] = scores[q] + at;
    AddValues<kQueries>(weights, values(block, slot), count, head.head_size, outputs);
  });
  for (int q = 0; q < kQueries; ++q) {
    const int32_t from = least - tile.begin;
    ForBlocks(head, least, tile.ends[q], [&](int64_t block, int32_t slot, int32_t count, int32_t at) {
      const float* weights = scores[q] + from + at;
      AddValues<1>(&weights, values(block, slot), count, head.head_size, &outputs[q]);
    });
  }
}

template <typename T>
void AttentionOf(const AttentionTile& tile, const PagedHead& head, float scale, float* scratch) {
  switch (tile.query_count) {
    case 1:
      return AttentionTileOf<1, T>(tile, head, scale, scratch);
    case 2:
      return AttentionTileOf<2, T>(tile, head, scale, scratch);
    case 3:
      return AttentionTileOf<3, T>(tile, head, scale, scratch);
    default:
      static_assert(kQueryTile == 4);
      return AttentionTileOf<4, T>(tile, head, scale, scratch);
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

void Quantize(const float* x, int64_t row, QuantizedRows& rows) {
  // The largest of all and sums of whole numbers are the same in any order.
  const hn::CappedTag<float, 16> d;
  const hn::Rebind<int32_t, decltype(d)> di;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int64_t b = 0; b < rows.columns() / kActivationBlock; ++b, x += kActivationBlock) {
    auto largest = hn::Zero(d);
    auto check = hn::Zero(d);
    for (int i = 0; i < kActivationBlock; i += lanes) {
      const auto value = hn::LoadU(d, x + i);
      largest = hn::Max(largest, hn::Abs(value));
      check = hn::MulAdd(value, hn::Zero(d), check);
    }
    const float most = hn::GetLane(hn::MaxOfLanes(d, largest));
    // A sum of products with zero: NaN if an element is infinite or NaN.
    const bool finite = hn::AllTrue(d, hn::Eq(check, hn::Zero(d)));
    ActivationBlock& block = rows.row_block(row, b);
    int8_t* values = rows.row_values(row, b);
    block = {.scale = finite ? most / 127.0f : std::numeric_limits<float>::quiet_NaN()};
    const auto inverse = hn::Set(d, finite && most > 0.0f ? 127.0f / most : 0.0f);
    for (int half = 0; half < 2; ++half) {
      auto sum = hn::Zero(di);
      for (int i = half * 16; i < half * 16 + 16; i += lanes) {
        const auto scaled = finite ? hn::Mul(hn::LoadU(d, x + i), inverse) : hn::Zero(d);
        const auto whole = hn::NearestInt(scaled);
        sum = hn::Add(sum, whole);
        hn::StoreU(hn::DemoteTo(d8, whole), d8, values + i);
      }
      block.sums[half] = hn::GetLane(hn::SumOfLanes(di, sum));
    }
    block.scaled_sum = block.scale * static_cast<float>(block.sums[0] + block.sums[1]);
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
