#include <algorithm>
#include <cmath>

#include "kernels/cpu/half.h"
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

float LoadElement(KvType type, const std::byte* elements, int64_t index) {
  switch (type) {
    case KvType::kF32:
      return reinterpret_cast<const float*>(elements)[index];
    case KvType::kF16:
      return F16ToFloat(reinterpret_cast<const uint16_t*>(elements)[index]);
    case KvType::kBF16:
      return Bf16ToFloat(reinterpret_cast<const uint16_t*>(elements)[index]);
  }
  return 0.0f;
}

// Element i of the key of a position.
float KeyOf(const PagedHead& head, int32_t position, int32_t i) {
  const std::byte* block = head.keys + head.blocks[position / head.block_tokens] * head.block_stride;
  return LoadElement(head.type, block, int64_t{i} * head.block_tokens + position % head.block_tokens);
}

float ValueOf(const PagedHead& head, int32_t position, int32_t i) {
  const std::byte* block = head.values + head.blocks[position / head.block_tokens] * head.block_stride;
  return LoadElement(head.type, block, int64_t{position % head.block_tokens} * head.head_size + i);
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
      for (int32_t i = 0; i < head.head_size; ++i) {
        result.values()[i] += weight * ValueOf(head, tile.begin + p, i);
      }
    }
  }
}

void Add(const float* y, int64_t size, float* x) {
  for (int64_t i = 0; i < size; ++i) x[i] += y[i];
}

void Rotate(const Turn* turns, int32_t head_count, int32_t head_size, float* heads) {
  for (int32_t h = 0; h < head_count; ++h, heads += head_size) {
    for (int32_t i = 0; i < head_size / 2; ++i) {
      const float x = heads[2 * i];
      const float y = heads[2 * i + 1];
      heads[2 * i] = x * turns[i].cosines[0] + y * turns[i].sines[0];
      heads[2 * i + 1] = x * turns[i].sines[1] + y * turns[i].cosines[1];
    }
  }
}

void Convert(const float* x, int32_t size, KvType type, std::byte* output) {
  if (type == KvType::kF32) {
    std::copy_n(x, size, reinterpret_cast<float*>(output));
    return;
  }
  uint16_t* const halves = reinterpret_cast<uint16_t*>(output);
  for (int32_t i = 0; i < size; ++i) halves[i] = type == KvType::kF16 ? FloatToF16(x[i]) : FloatToBf16(x[i]);
}

}  // namespace

void MergeSpans(const float* results, int64_t stride, int32_t count, int32_t head_size, float* output) {
  const auto result = [&](int32_t i) { return reinterpret_cast<const SpanResult*>(results + i * stride); };
  if (count == 1) {
    // As below, where its factor is 1.
    const float inverse = 1.0f / result(0)->weight_sum;
    for (int32_t d = 0; d < head_size; ++d) output[d] = (0.0f + result(0)->values()[d]) * inverse;
    return;
  }
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
  static constexpr RowOps kOps = {RmsNorm, SwiGlu, Attention, QuantizeBlocks, Dot, Add, Rotate, Convert};
  return kOps;
}

}  // namespace fermata::kernels
