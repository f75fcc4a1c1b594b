#include <cuda_runtime.h>

#include "kernels/cuda/rms_norm.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int kWarpSize = 32;
constexpr int kThreads = 256;

__device__ float SumOverWarp(float value) {
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  return value;
}

// One block a row. The row is read twice; the second read comes from cache.
__global__ void RmsNormKernel(const float* x, const float* weight, float epsilon, int32_t size, float* output) {
  __shared__ float warp_sums[kThreads / kWarpSize];
  const int64_t row_offset = static_cast<int64_t>(blockIdx.x) * size;
  const float* row = x + row_offset;

  float sum = 0.0f;
  for (int32_t i = threadIdx.x; i < size; i += kThreads) sum += row[i] * row[i];
  sum = SumOverWarp(sum);
  if (threadIdx.x % kWarpSize == 0) warp_sums[threadIdx.x / kWarpSize] = sum;
  __syncthreads();

  float total = 0.0f;
  for (int warp = 0; warp < kThreads / kWarpSize; ++warp) total += warp_sums[warp];
  const float scale = 1.0f / sqrtf(total / static_cast<float>(size) + epsilon);
  for (int32_t i = threadIdx.x; i < size; i += kThreads) output[row_offset + i] = row[i] * scale * weight[i];
}

}  // namespace

int RmsNorm(const float* x, const float* weight, float epsilon, int64_t rows, int32_t size, float* output,
            CUstream_st* stream) {
  if (rows == 0) return cudaSuccess;
  RmsNormKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(x, weight, epsilon, size, output);
  return cudaGetLastError();
}

}  // namespace fermata::kernels::cuda
