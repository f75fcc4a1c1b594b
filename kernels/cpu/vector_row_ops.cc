// Highway compiles this file once for each instruction set and chooses among them at run time.

#include <algorithm>
#include <cmath>

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

// output[i] += weights[0] * values[0][i] + ..., position after position.
HWY_INLINE void AddValues(const float* weights, const float* values, int32_t count, int32_t size, float* output) {
  const Tag d;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  int32_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    auto sum = hn::LoadU(d, output + i);
    for (int32_t p = 0; p < count; ++p) {
      sum = hn::MulAdd(hn::Set(d, weights[p]), hn::LoadU(d, values + int64_t{p} * size + i), sum);
    }
    hn::StoreU(sum, d, output + i);
  }
  for (; i < size; ++i) {
    for (int32_t p = 0; p < count; ++p) output[i] += weights[p] * values[int64_t{p} * size + i];
  }
}

void Attention(const float* query, const PagedHead& head, int32_t position_count, float scale, float* scores,
               float* output) {
  float largest = -INFINITY;
  for (int32_t begin = 0; begin < position_count; begin += head.block_tokens) {
    const float* keys = head.keys + head.blocks[begin / head.block_tokens] * head.block_stride;
    const int32_t count = std::min(head.block_tokens, position_count - begin);
    for (int32_t slot = 0; slot < count; ++slot) {
      const float score = DotInline(query, keys + int64_t{slot} * head.head_size, head.head_size) * scale;
      scores[begin + slot] = score;
      largest = std::max(largest, score);
    }
  }
  const float sum = Exponentiate(largest, position_count, scores);
  std::fill(output, output + head.head_size, 0.0f);
  for (int32_t begin = 0; begin < position_count; begin += head.block_tokens) {
    const float* values = head.values + head.blocks[begin / head.block_tokens] * head.block_stride;
    AddValues(scores + begin, values, std::min(head.block_tokens, position_count - begin), head.head_size, output);
  }
  const float inverse = 1.0f / sum;
  for (int32_t i = 0; i < head.head_size; ++i) output[i] *= inverse;
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

const RowOps& VectorRowOps() {
  static const RowOps ops = [] {
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    return RowOps{&HWY_DYNAMIC_DISPATCH(RmsNorm), &HWY_DYNAMIC_DISPATCH(SwiGlu), &HWY_DYNAMIC_DISPATCH(Attention),
                  &HWY_DYNAMIC_DISPATCH(Dot)};
  }();
  return ops;
}

}  // namespace fermata::kernels

#endif  // HWY_ONCE
