// Attention of many queries over the paged cache, by Hopper's own means: tiles brought by the tensor memory
// accelerator, products by warpgroups.

#ifndef FERMATA_KERNELS_CUDA_HOPPER_ATTENTION_H_
#define FERMATA_KERNELS_CUDA_HOPPER_ATTENTION_H_

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cuda/paged_attention.h"
#include "kernels/cuda/tensor_map.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

// The pool as the accelerator sees it: rows of one slot of one head.
struct KvMap {
  TensorMap tensor;  // usable if device and shape are served
  KvShape shape;
};

// `pool` is device memory of that shape. Heads of 128 elements and blocks of 8, 16, 32, 64 or 128 tokens, on a device
// of compute capability 9.0, are served.
KvMap MapKv(void* pool, const KvShape& shape);

// As PrefillAttention(), for `layer`. REQUIRES: map.tensor.usable.
//
// Algorithm: Dao, "FlashAttention-2", 2023, with the overlap of products and softmax of Shah et al.,
// "FlashAttention-3", 2024.
int HopperAttention(const AttentionInput& input, const KvMap& map, int32_t layer, CUstream_st* stream);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_HOPPER_ATTENTION_H_
