// Rotary positions, and keys and values into the paged cache.

#ifndef FERMATA_KERNELS_CUDA_ROPE_AND_STORE_H_
#define FERMATA_KERNELS_CUDA_ROPE_AND_STORE_H_

#include <cstdint>

#include "kernels/cuda/kv_layout.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

// Elements from one row to the next.
struct RopeStrides {
  int64_t q;
  int64_t k;
  int64_t v;
};

// Turns pairs 2i, 2i + 1 of each head of q [rows][head_count][head size] in place by position * frequencies[i], writes
// k [rows][kv heads][head size] so turned and v as it is into `kv` at each row's place; rows lie `strides` apart,
// multiples of 8; nothing is stored of one at kNoBlock. frequencies: [head size / 2]; places: [rows]. All are device
// memory, q, k, v bfloat16, rounded once. k is left as it was. The head size is a multiple of 8, at most 128.
// Asynchronous on `stream`; returns the launch's cudaError_t (0: launched); `rows` of 0 is no launch.
//
// Algorithm: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
int RopeAndStore(const KvRow* places, int32_t rows, int32_t head_count, const float* frequencies, const KvLayer& kv,
                 const RopeStrides& strides, uint16_t* q, const uint16_t* k, const uint16_t* v, CUstream_st* stream);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_ROPE_AND_STORE_H_
