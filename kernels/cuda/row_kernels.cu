#include <cuda_runtime.h>

#include "kernels/cuda/bf16_ops.cuh"
#include "kernels/cuda/row_kernels.h"
#include "kernels/cuda/small_product.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float ToFloat(Bf16 bits) { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }
__device__ Bf16 ToBf16(float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); }
__device__ float Silu(float x) { return x / (1.0f + __expf(-x)); }

unsigned BlocksFor(int64_t count, int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

// Whether rows of `size` at these addresses can be read 16 bytes at a time.
template <typename... Pointers>
bool Wide(int64_t size, Pointers... pointers) {
  return size % 8 == 0 && ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

template <typename T>
__global__ void GatherKernel(const T* x, const int32_t* indices, int32_t size, T* output) {
  AwaitPrevious();
  LetNextBegin();
  const T* from = x + static_cast<int64_t>(indices[blockIdx.x]) * size;
  T* to = output + static_cast<int64_t>(blockIdx.x) * size;
  for (int32_t i = threadIdx.x; i < size; i += kThreads) to[i] = from[i];
}

__device__ float SumOverBlock(float value) {
  __shared__ float warp_sums[kThreads / kWarpSize];
  value = SumOverWarp(value);
  if (threadIdx.x % kWarpSize == 0) warp_sums[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  float total = 0.0f;
  for (int warp = 0; warp < kThreads / kWarpSize; ++warp) total += warp_sums[warp];
  return total;
}

// In elements of `size` to a row.
__device__ int64_t RowOffset(const RowLayout& layout, int64_t size) {
  const int64_t row = blockIdx.x;
  return row / layout.count * layout.stride + row % layout.count * size;
}

// One block a row; any size.
__global__ void RmsNormKernel(const Bf16* delta, const float* weight, float epsilon, int32_t size,
                              const RowLayout layout, Bf16* x, Bf16* output) {
  AwaitPrevious();
  LetNextBegin();
  const int64_t offset = RowOffset(layout, size);
  Bf16* row = x + offset;
  float sum = 0.0f;
  for (int32_t i = threadIdx.x; i < size; i += kThreads) {
    if (delta != nullptr) row[i] = ToBf16(ToFloat(row[i]) + ToFloat(delta[offset + i]));
    const float value = ToFloat(row[i]);
    sum += value * value;
  }
  const float scale = 1.0f / sqrtf(SumOverBlock(sum) / static_cast<float>(size) + epsilon);
  for (int32_t i = threadIdx.x; i < size; i += kThreads)
    output[offset + i] = ToBf16(ToFloat(row[i]) * scale * weight[i]);
}

// The same for rows of at most kThreads * kPieces * 8 elements, a multiple of 8, kept in registers.
template <int kPieces>
__global__ void WideRmsNormKernel(const Bf16x8* delta, const float* weight, float epsilon, int32_t pieces,
                                  const RowLayout layout, Bf16x8* x, Bf16x8* output) {
  // Weights are nobody's result: they come before the kernel in front is done.
  float4 factors[kPieces][2];
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int32_t i = threadIdx.x + p * kThreads;
    if (i >= pieces) continue;
    factors[p][0] = reinterpret_cast<const float4*>(weight)[i * 2];
    factors[p][1] = reinterpret_cast<const float4*>(weight)[i * 2 + 1];
  }
  // Products of one or two handfuls of rows would, while they wait, be in the way of the one that this waits for;
  // others bring their first weights meanwhile.
  const bool early = gridDim.x > kSmallProductRows;
  if (early) LetNextBegin();
  AwaitPrevious();
  if (!early) LetNextBegin();
  const int64_t offset = RowOffset(layout, pieces * 8) / 8;
  Bf16x8 values[kPieces];
  float sum = 0.0f;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int32_t i = threadIdx.x + p * kThreads;
    if (i >= pieces) continue;
    values[p] = x[offset + i];
    if (delta != nullptr) {
      const Bf16x8 added = delta[offset + i];
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        values[p].words[w] = PackBf16(LowFloat(values[p].words[w]) + LowFloat(added.words[w]),
                                      HighFloat(values[p].words[w]) + HighFloat(added.words[w]));
      }
      x[offset + i] = values[p];
    }
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const float low = LowFloat(values[p].words[w]);
      const float high = HighFloat(values[p].words[w]);
      sum += low * low + high * high;
    }
  }
  const float scale = 1.0f / sqrtf(SumOverBlock(sum) / static_cast<float>(pieces * 8) + epsilon);
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int32_t i = threadIdx.x + p * kThreads;
    if (i >= pieces) continue;
    const Bf16x8& value = values[p];
    const float4& low = factors[p][0];
    const float4& high = factors[p][1];
    output[offset + i] = {
        {PackBf16(LowFloat(value.words[0]) * scale * low.x, HighFloat(value.words[0]) * scale * low.y),
         PackBf16(LowFloat(value.words[1]) * scale * low.z, HighFloat(value.words[1]) * scale * low.w),
         PackBf16(LowFloat(value.words[2]) * scale * high.x, HighFloat(value.words[2]) * scale * high.y),
         PackBf16(LowFloat(value.words[3]) * scale * high.z, HighFloat(value.words[3]) * scale * high.w)}};
  }
}

__global__ void AddBiasKernel(const float* bias, int64_t count, int32_t size, int64_t stride, Bf16* x) {
  AwaitPrevious();
  LetNextBegin();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  Bf16& element = x[i / size * stride + i % size];
  element = ToBf16(ToFloat(element) + bias[i % size]);
}

struct Sum {
  __device__ float operator()(float x, float y) const { return x + y; }
};
struct Gated {
  __device__ float operator()(float gate, float up) const { return Silu(gate) * up; }
};

// gridDim.y rows of `count`.
template <typename Operation>
__global__ void CombineKernel(const Bf16* y, int64_t count, int64_t stride, Bf16* x) {
  AwaitPrevious();
  LetNextBegin();
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  i += blockIdx.y * stride;
  x[i] = ToBf16(Operation()(ToFloat(x[i]), ToFloat(y[i])));
}

template <typename Operation>
__global__ void WideCombineKernel(const Bf16x8* y, int64_t pieces, int64_t stride, Bf16x8* x) {
  AwaitPrevious();
  LetNextBegin();
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= pieces) return;
  i += blockIdx.y * stride;
  Bf16x8 value = x[i];
  const Bf16x8 other = y[i];
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    value.words[w] = PackBf16(Operation()(LowFloat(value.words[w]), LowFloat(other.words[w])),
                              Operation()(HighFloat(value.words[w]), HighFloat(other.words[w])));
  }
  x[i] = value;
}

__global__ void NoiseKernel(int64_t count, Bf16* x) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  // From: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
  uint64_t bits = (i + 1) * 0x9E3779B97F4A7C15ull;
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9ull;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBull;
  x[i] = ToBf16(static_cast<float>(bits >> 40) / 4194304.0f - 2.0f);
}

template <typename Operation>
int Combine(const Bf16* y, unsigned rows, int64_t count, int64_t stride, Bf16* x, cudaStream_t stream) {
  if (rows == 0 || count == 0) return cudaSuccess;
  if (Wide(count, x, y) && stride % 8 == 0) {
    return LaunchEarly(WideCombineKernel<Operation>, dim3(BlocksFor(count / 8, kThreads), rows), kThreads, 0, stream,
                       reinterpret_cast<const Bf16x8*>(y), count / 8, stride / 8, reinterpret_cast<Bf16x8*>(x));
  }
  return LaunchEarly(CombineKernel<Operation>, dim3(BlocksFor(count, kThreads), rows), kThreads, 0, stream, y, count,
                     stride, x);
}

}  // namespace

int GatherRows(const Bf16* x, const int32_t* indices, int64_t rows, int32_t size, Bf16* output, CUstream_st* stream) {
  if (rows == 0) return cudaSuccess;
  const unsigned blocks = static_cast<unsigned>(rows);
  if (Wide(size, x, output)) {
    return LaunchEarly(GatherKernel<Bf16x8>, dim3(blocks), kThreads, 0, stream, reinterpret_cast<const Bf16x8*>(x),
                       indices, size / 8, reinterpret_cast<Bf16x8*>(output));
  }
  return LaunchEarly(GatherKernel<Bf16>, dim3(blocks), kThreads, 0, stream, x, indices, size, output);
}

int RmsNorm(const Bf16* delta, const float* weight, float epsilon, int64_t rows, int32_t size, RowLayout layout,
            Bf16* x, Bf16* output, CUstream_st* stream) {
  if (rows == 0) return cudaSuccess;
  if (layout.stride == 0) layout.stride = static_cast<int64_t>(layout.count) * size;
  const unsigned blocks = static_cast<unsigned>(rows);
  const auto* wide_delta = reinterpret_cast<const Bf16x8*>(delta);
  auto* wide_x = reinterpret_cast<Bf16x8*>(x);
  auto* wide_output = reinterpret_cast<Bf16x8*>(output);
  if (!Wide(size, delta, x, output, weight) || layout.stride % 8 != 0 || size > kThreads * 8 * 4) {
    return LaunchEarly(RmsNormKernel, dim3(blocks), kThreads, 0, stream, delta, weight, epsilon, size, layout, x,
                       output);
  }
  if (size <= kThreads * 8) {
    return LaunchEarly(WideRmsNormKernel<1>, dim3(blocks), kThreads, 0, stream, wide_delta, weight, epsilon, size / 8,
                       layout, wide_x, wide_output);
  }
  return LaunchEarly(WideRmsNormKernel<4>, dim3(blocks), kThreads, 0, stream, wide_delta, weight, epsilon, size / 8,
                     layout, wide_x, wide_output);
}

int AddBias(const float* bias, int64_t rows, int32_t size, int64_t stride, Bf16* x, CUstream_st* stream) {
  if (rows == 0) return cudaSuccess;
  return LaunchEarly(AddBiasKernel, dim3(BlocksFor(rows * size, kThreads)), kThreads, 0, stream, bias, rows * size,
                     size, stride, x);
}

int Add(const Bf16* y, int64_t count, Bf16* x, CUstream_st* stream) { return Combine<Sum>(y, 1, count, 0, x, stream); }

int SwiGlu(const Bf16* up, int32_t rows, int32_t size, int64_t stride, Bf16* gate, CUstream_st* stream) {
  return Combine<Gated>(up, static_cast<unsigned>(rows), size, stride, gate, stream);
}

int FillWithNoise(int64_t count, Bf16* x, CUstream_st* stream) {
  NoiseKernel<<<BlocksFor(count, kThreads), kThreads, 0, stream>>>(count, x);
  return cudaGetLastError();
}

}  // namespace fermata::kernels::cuda
