#include <cuda_runtime.h>

#include "kernels/cuda/bf16_ops.cuh"
#include "kernels/cuda/rope_and_store.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxPairs = 64;

// Of one position: a pair's sine and cosine. They are the accurate ones: positions go far beyond where the fast ones
// hold.
struct Turn {
  float sine;
  float cosine;
};

__device__ Bf16x8 Rotate(const Bf16x8& value, const Turn* turns) {
  Bf16x8 result;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const float x = LowFloat(value.words[w]);
    const float y = HighFloat(value.words[w]);
    result.words[w] = PackBf16(x * turns[w].cosine - y * turns[w].sine, x * turns[w].sine + y * turns[w].cosine);
  }
  return result;
}

// One block a row; a thread takes pieces of 8 elements. Sizes count pieces.
__global__ void RopeAndStoreKernel(const KvRow* places, int32_t head_count, const float* frequencies, const KvLayer kv,
                                   const RopeStrides strides, Bf16x8* q, const Bf16x8* k, const Bf16x8* v) {
  __shared__ Turn turns[kMaxPairs];
  const int64_t row = blockIdx.x;
  const KvRow place = places[row];
  const int32_t pairs = kv.head_size / 2;
  // What the step's tables say is there before the kernel in front is done.
  for (int32_t i = threadIdx.x; i < pairs; i += kThreads) {
    sincosf(static_cast<float>(place.position) * frequencies[i], &turns[i].sine, &turns[i].cosine);
  }
  __syncthreads();
  AwaitPrevious();
  LetNextBegin();
  const int32_t size = kv.head_size / 8;
  Bf16x8* query = q + row * strides.q;
  for (int32_t i = threadIdx.x; i < head_count * size; i += kThreads) {
    query[i] = Rotate(query[i], turns + i % size * 4);
  }
  if (place.block == kNoBlock) return;
  const int64_t head_stride = static_cast<int64_t>(kv.block_tokens) * size;
  Bf16x8* keys = reinterpret_cast<Bf16x8*>(kv.data + place.block * kv.block_stride) +
                 static_cast<int64_t>(place.position % kv.block_tokens) * size;
  Bf16x8* values = keys + kv.kv_head_count * head_stride;
  for (int32_t i = threadIdx.x; i < kv.kv_head_count * size; i += kThreads) {
    const int64_t slot = i / size * head_stride + i % size;
    keys[slot] = Rotate(k[row * strides.k + i], turns + i % size * 4);
    values[slot] = v[row * strides.v + i];
  }
}

}  // namespace

int RopeAndStore(const KvRow* places, int32_t rows, int32_t head_count, const float* frequencies, const KvLayer& kv,
                 const RopeStrides& strides, uint16_t* q, const uint16_t* k, const uint16_t* v, CUstream_st* stream) {
  if (rows == 0) return cudaSuccess;
  if (kv.head_size % 8 != 0 || kv.head_size / 2 > kMaxPairs) return cudaErrorInvalidValue;
  return LaunchEarly(RopeAndStoreKernel, dim3(static_cast<unsigned>(rows)), kThreads, 0, stream, places, head_count,
                     frequencies, kv, RopeStrides{strides.q / 8, strides.k / 8, strides.v / 8},
                     reinterpret_cast<Bf16x8*>(q), reinterpret_cast<const Bf16x8*>(k),
                     reinterpret_cast<const Bf16x8*>(v));
}

}  // namespace fermata::kernels::cuda
