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

const float* Slot(const float* base, const PagedHead& head, int32_t position) {
  return base + head.blocks[position / head.block_tokens] * head.block_stride +
         static_cast<int64_t>(position % head.block_tokens) * head.head_size;
}

void Attention(const float* query, const PagedHead& head, int32_t position_count, float scale, float* scores,
               float* output) {
  float largest = -INFINITY;
  for (int32_t p = 0; p < position_count; ++p) {
    scores[p] = Dot(query, Slot(head.keys, head, p), head.head_size) * scale;
    largest = std::max(largest, scores[p]);
  }
  float sum = 0.0f;
  std::fill(output, output + head.head_size, 0.0f);
  for (int32_t p = 0; p < position_count; ++p) {
    const float weight = std::exp(scores[p] - largest);
    sum += weight;
    const float* value = Slot(head.values, head, p);
    for (int32_t i = 0; i < head.head_size; ++i) output[i] += weight * value[i];
  }
  for (int32_t i = 0; i < head.head_size; ++i) output[i] /= sum;
}

}  // namespace

const RowOps& PlainRowOps() {
  static constexpr RowOps kOps = {RmsNorm, SwiGlu, Attention, Dot};
  return kOps;
}

}  // namespace fermata::kernels
