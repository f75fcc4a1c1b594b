// The operations of a forward pass on one row, besides products: plain C++ for the exact path, vectors for the fast
// one.

#ifndef FERMATA_KERNELS_CPU_ROW_OPS_H_
#define FERMATA_KERNELS_CPU_ROW_OPS_H_

#include <cstdint>

namespace fermata::kernels {

// Where the keys and values of one KV head of one generation are: position p is slot p % block_tokens of block
// blocks[p / block_tokens]; a slot of block b begins at base + b * block_stride + slot * head_size.
struct PagedHead {
  const float* keys;  // of block 0, slot 0
  const float* values;
  int64_t block_stride;  // floats
  const int32_t* blocks;
  int32_t block_tokens;
  int32_t head_size;
};

// All pointers are float32, not overlapping except where said. The bits of a result depend on the arguments' values
// alone.
struct RowOps {
  // output[i] = x[i] * weight[i] / sqrt(mean(x^2) + epsilon).
  void (*rms_norm)(const float* x, const float* weight, float epsilon, int32_t size, float* output);

  // gate[i] = silu(gate[i]) * up[i].
  void (*swiglu)(const float* up, int32_t size, float* gate);

  // output [head_size] = attention of `query` over positions 0 .. position_count - 1, scores scaled by `scale`.
  // `scores` is scratch for position_count floats.
  void (*attention)(const float* query, const PagedHead& head, int32_t position_count, float scale, float* scores,
                    float* output);

  // The sum of a[i] * b[i].
  float (*dot)(const float* a, const float* b, int64_t size);
};

// Loops as they are written in the formulas. The reference.
const RowOps& PlainRowOps();

// Highway's vectors, the widest that the machine has, chosen when first called.
const RowOps& VectorRowOps();

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_ROW_OPS_H_
