#include <algorithm>
#include <cmath>

#include "kernels/cpu/row_ops.h"

namespace fermata::kernels {
namespace {

// Partial sums, so that the compiler may use vectors without changing the order.
constexpr int kLanes = 8;

float Dot(const float* a, const float* b, int64_t size) {
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  float sum = 0.0f;
  for (; i < size; ++i) sum += a[i] * b[i];
  for (const float lane : sums) sum += lane;
  return sum;
}

void RmsNorm(const float* x, const float* weight, float epsilon, int32_t size, float* output) {
  const float scale = 1.0f / std::sqrt(Dot(x, x, size) / static_cast<float>(size) + epsilon);
  for (int32_t i = 0; i < size; ++i) output[i] = x[i] * scale * weight[i];
}

void SwiGlu(const float* up, int32_t size, float* gate) {
  for (int32_t i = 0; i < size; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

// Element i of the key of a position.
float KeyOf(const PagedHead& head, int32_t position, int32_t i) {
  const float* block = head.keys + head.blocks[position / head.block_tokens] * head.block_stride;
  return block[int64_t{i} * head.block_tokens + position % head.block_tokens];
}

const float* ValueOf(const PagedHead& head, int32_t position) {
  return head.values + head.blocks[position / head.block_tokens] * head.block_stride +
         static_cast<int64_t>(position % head.block_tokens) * head.head_size;
}

void Attention(const AttentionTile& tile, const PagedHead& head, float scale, float* scores) {
  for (int q = 0; q < tile.query_count; ++q) {
    SpanResult& result = *tile.results[q];
    result = {.largest = -INFINITY, .weight_sum = 0.0f};
    const int32_t count = tile.ends[q] - tile.begin;
    for (int32_t p = 0; p < count; ++p) {
      float score = 0.0f;
      for (int32_t i = 0; i < head.head_size; ++i) score += tile.queries[q][i] * KeyOf(head, tile.begin + p, i);
      scores[p] = score * scale;
      result.largest = std::max(result.largest, scores[p]);
    }
    std::fill_n(result.values(), head.head_size, 0.0f);
    for (int32_t p = 0; p < count; ++p) {
      const float weight = std::exp(scores[p] - result.largest);
      result.weight_sum += weight;
      const float* value = ValueOf(head, tile.begin + p);
      for (int32_t i = 0; i < head.head_size; ++i) result.values()[i] += weight * value[i];
    }
  }
}

}  // namespace

void MergeSpans(const float* results, int64_t stride, int32_t count, int32_t head_size, float* output) {
  const auto result = [&](int32_t i) { return reinterpret_cast<const SpanResult*>(results + i * stride); };
  float largest = -INFINITY;
  for (int32_t i = 0; i < count; ++i) largest = std::max(largest, result(i)->largest);
  float sum = 0.0f;
  std::fill_n(output, head_size, 0.0f);
  for (int32_t i = 0; i < count; ++i) {
    const float factor = std::exp(result(i)->largest - largest);
    sum += factor * result(i)->weight_sum;
    const float* values = result(i)->values();
    for (int32_t d = 0; d < head_size; ++d) output[d] += factor * values[d];
  }
  const float inverse = 1.0f / sum;
  for (int32_t d = 0; d < head_size; ++d) output[d] *= inverse;
}

const RowOps& PlainRowOps() {
  static constexpr RowOps kOps = {RmsNorm, SwiGlu, Attention, QuantizeRow, Dot};
  return kOps;
}

}  // namespace fermata::kernels
