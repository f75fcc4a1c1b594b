#include <cuda_runtime.h>

#include "kernels/cuda/bf16_ops.cuh"
#include "kernels/cuda/rope_and_store.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// The angle's sine and cosine are the accurate ones: positions go far beyond where the fast ones hold.
__device__ uint32_t Rotate(uint32_t pair, int32_t position, float frequency) {
  float sine, cosine;
  sincosf(static_cast<float>(position) * frequency, &sine, &cosine);
  const float x = LowFloat(pair);
  const float y = HighFloat(pair);
  return PackBf16(x * cosine - y * sine, x * sine + y * cosine);
}

// gridDim.y blocks a row; a thread takes pairs.
__global__ void RopeAndStoreKernel(const KvRow* places, int32_t head_count, const float* frequencies, const KvLayer kv,
                                   const RopeStrides strides, uint32_t* q, const uint32_t* k, const uint32_t* v) {
  AwaitPrevious();
  LetNextBegin();
  const int64_t row = blockIdx.x;
  const KvRow place = places[row];
  const int32_t pairs = kv.head_size / 2;
  uint32_t* query = q + row * strides.q / 2;
  const int32_t first = blockIdx.y * kThreads + threadIdx.x;
  const int32_t stride = gridDim.y * kThreads;
  for (int32_t i = first; i < head_count * pairs; i += stride) {
    query[i] = Rotate(query[i], place.position, frequencies[i % pairs]);
  }
  const int64_t kv_pairs = static_cast<int64_t>(kv.kv_head_count) * pairs;
  const int64_t head_stride = static_cast<int64_t>(kv.block_tokens) * pairs;
  uint32_t* keys = reinterpret_cast<uint32_t*>(kv.data + place.block * kv.block_stride) +
                   static_cast<int64_t>(place.position % kv.block_tokens) * pairs;
  uint32_t* values = keys + kv.kv_head_count * head_stride;
  for (int32_t i = first; i < kv_pairs; i += stride) {
    const int64_t slot = i / pairs * head_stride + i % pairs;
    keys[slot] = Rotate(k[row * strides.k / 2 + i], place.position, frequencies[i % pairs]);
    values[slot] = v[row * strides.v / 2 + i];
  }
}

}  // namespace

int RopeAndStore(const KvRow* places, int32_t rows, int32_t head_count, const float* frequencies, const KvLayer& kv,
                 const RopeStrides& strides, uint16_t* q, const uint16_t* k, const uint16_t* v, CUstream_st* stream) {
  if (rows == 0) return cudaSuccess;
  const int32_t parts = (head_count * (kv.head_size / 2) + kThreads - 1) / kThreads;
  return LaunchEarly(RopeAndStoreKernel, dim3(rows, parts), kThreads, 0, stream, places, head_count, frequencies, kv,
                     strides, reinterpret_cast<uint32_t*>(q), reinterpret_cast<const uint32_t*>(k),
                     reinterpret_cast<const uint32_t*>(v));
}

}  // namespace fermata::kernels::cuda
