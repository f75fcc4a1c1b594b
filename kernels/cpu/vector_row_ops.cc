// Highway compiles this file once for each instruction set and chooses among them at run time.

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/row_ops.h"

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

// scores[p] = exp(scores[p] - largest); returns their sum.
HWY_INLINE float Exponentiate(float largest, int32_t count, float* scores) {
  const Tag d;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  const auto maximum = hn::Set(d, largest);
  auto sums = hn::Zero(d);
  int32_t p = 0;
  for (; p + lanes <= count; p += lanes) {
    const auto weight = hn::CallExp(d, hn::Sub(hn::LoadU(d, scores + p), maximum));
    hn::StoreU(weight, d, scores + p);
    sums = hn::Add(sums, weight);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; p < count; ++p) {
    scores[p] = std::exp(scores[p] - largest);
    sum += scores[p];
  }
  return sum;
}

// Where a sum is one chain for each element, the width of a vector changes no bit.
using Wide = hn::ScalableTag<float>;

// scores[q][p] for the slots [first, first + count) of a block; may write beyond the last. Two chains for each score:
// even elements and odd ones.
template <int kQueries>
HWY_INLINE void ScoreSlots(const AttentionTile& tile, const float* keys, int32_t block_tokens, int32_t head_size,
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
    const float* key = keys + slot;
    int32_t i = 0;
    for (; i + 2 <= head_size; i += 2, key += 2 * int64_t{block_tokens}) {
      const auto k0 = hn::LoadU(d, key);
      const auto k1 = hn::LoadU(d, key + block_tokens);
      for (int q = 0; q < kQueries; ++q) {
        even[q] = hn::MulAdd(hn::Set(d, queries[q][i]), k0, even[q]);
        odd[q] = hn::MulAdd(hn::Set(d, queries[q][i + 1]), k1, odd[q]);
      }
    }
    if (i < head_size) {
      const auto k0 = hn::LoadU(d, key);
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
        sums[i % 2] = std::fma(queries[q][i], keys[int64_t{i} * block_tokens + slot], sums[i % 2]);
      }
      scores[q][slot - first] = (sums[0] + sums[1]) * scale;
    }
  }
}

// output[q][i] += weights[q][0] * values[0][i] + ..., position after position.
template <int kQueries>
HWY_INLINE void AddValues(const float* const* weights, const float* values, int32_t count, int32_t head_size,
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
    const float* value = values + i;
    for (int32_t p = 0; p < count; ++p, value += head_size) {
      const auto v0 = hn::LoadU(d, value);
      const auto v1 = hn::LoadU(d, value + lanes);
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
        outputs[q][i] = std::fma(weights[q][p], values[int64_t{p} * head_size + i], outputs[q][i]);
      }
    }
  }
}

// Calls body(block, first slot, count, position after begin) for the pieces of [begin, end) that lie in one block each.
template <typename Body>
HWY_INLINE void ForBlocks(const PagedHead& head, int32_t begin, int32_t end, Body body) {
  for (int32_t p = begin; p < end;) {
    const int32_t slot = p % head.block_tokens;
    const int32_t count = std::min(head.block_tokens - slot, end - p);
    body(head.blocks[p / head.block_tokens] * head.block_stride, slot, count, p - begin);
    p += count;
  }
}

template <int kQueries>
void AttentionTileOf(const AttentionTile& tile, const PagedHead& head, float scale, float* scratch) {
  float* scores[kQueries];
  float* outputs[kQueries];
  for (int q = 0; q < kQueries; ++q) {
    scores[q] = scratch + q * (kAttentionScratch / kQueryTile);
    outputs[q] = tile.results[q]->values();
    std::fill_n(outputs[q], head.head_size, 0.0f);
  }
  const int32_t most = *std::max_element(tile.ends, tile.ends + kQueries);
  ForBlocks(head, tile.begin, most, [&](int64_t block, int32_t slot, int32_t count, int32_t at) {
    float* places[kQueries];
    for (int q = 0; q < kQueries; ++q) places[q] = scores[q] + at;
    ScoreSlots<kQueries>(tile, head.keys + block, head.block_tokens, head.head_size, slot, count, scale, places);
  });
  for (int q = 0; q < kQueries; ++q) {
    const int32_t count = tile.ends[q] - tile.begin;
    SpanResult& result = *tile.results[q];
    result.largest = *std::max_element(scores[q], scores[q] + count);
    result.weight_sum = Exponentiate(result.largest, count, scores[q]);
  }
  // What all of them see, and then, for each alone, what the others do not.
  const int32_t least = *std::min_element(tile.ends, tile.ends + kQueries);
  ForBlocks(head, tile.begin, least, [&](int64_t block, int32_t slot, int32_t count, int32_t at) {
    const float* weights[kQueries];
    for (int q = 0; q < kQueries; ++q) weights[q] = scores[q] + at;
    AddValues<kQueries>(weights, head.values + block + int64_t{slot} * head.head_size, count, head.head_size, outputs);
  });
  for (int q = 0; q < kQueries; ++q) {
    const int32_t from = least - tile.begin;
    ForBlocks(head, least, tile.ends[q], [&](int64_t block, int32_t slot, int32_t count, int32_t at) {
      const float* weights = scores[q] + from + at;
      AddValues<1>(&weights, head.values + block + int64_t{slot} * head.head_size, count, head.head_size, &outputs[q]);
    });
  }
}

void Attention(const AttentionTile& tile, const PagedHead& head, float scale, float* scratch) {
  switch (tile.query_count) {
    case 1:
      return AttentionTileOf<1>(tile, head, scale, scratch);
    case 2:
      return AttentionTileOf<2>(tile, head, scale, scratch);
    case 3:
      return AttentionTileOf<3>(tile, head, scale, scratch);
    default:
      static_assert(kQueryTile == 4);
      return AttentionTileOf<4>(tile, head, scale, scratch);
  }
}

void Quantize(const float* x, int64_t row, QuantizedRows& rows) {
  // Eight lanes everywhere: a block is four vectors.
  const Tag d;
  const hn::Rebind<int32_t, Tag> di;
  const hn::Rebind<int8_t, Tag> d8;
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
    // NaN if an element is infinite or NaN.
    const bool finite = hn::GetLane(hn::SumOfLanes(d, check)) == 0.0f;
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

const RowOps& VectorRowOps() {
  static const RowOps ops = [] {
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    return RowOps{&HWY_DYNAMIC_DISPATCH(RmsNorm), &HWY_DYNAMIC_DISPATCH(SwiGlu), &HWY_DYNAMIC_DISPATCH(Attention),
                  &HWY_DYNAMIC_DISPATCH(Quantize), &HWY_DYNAMIC_DISPATCH(Dot)};
  }();
  return ops;
}

}  // namespace fermata::kernels

#endif  // HWY_ONCE
