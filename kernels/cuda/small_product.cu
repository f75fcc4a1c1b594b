#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/bf16_ops.cuh"
#include "kernels/cuda/small_product.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kTile = 16;  // outputs of a block
constexpr int kStep = 32;  // columns that a warp takes at a time: four lanes with 8 each
constexpr int32_t kEarlyRows = 2;
constexpr int kUnroll = 4;  // steps whose loads are in flight together

struct Arguments {
  SmallProductMatrix matrices[kSmallProductMatrices];
  int32_t first_block[kSmallProductMatrices];
  int32_t count;
  const uint16_t* x;
  int64_t x_stride;
  int32_t rows;
  int32_t columns;
};

__device__ Bf16x8 LoadStreaming(const uint16_t* from, bool valid) {
  Bf16x8 value = {};
  if (valid) {
    const int4 bits = __ldcs(reinterpret_cast<const int4*>(from));
    value = {{static_cast<uint32_t>(bits.x), static_cast<uint32_t>(bits.y), static_cast<uint32_t>(bits.z),
              static_cast<uint32_t>(bits.w)}};
  }
  return value;
}

__device__ Bf16x8 LoadCached(const uint16_t* from, bool valid) {
  Bf16x8 value = {};
  if (valid) value = *reinterpret_cast<const Bf16x8*>(from);
  return value;
}

// The weights of kUnroll steps that a lane holds.
struct Steps {
  Bf16x8 upper[kUnroll];
  Bf16x8 lower[kUnroll];

  __device__ void LoadWeights(const uint16_t* upper_row, const uint16_t* lower_row, int32_t begin, int32_t columns,
                              bool has_upper, bool has_lower) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int32_t column = begin + u * kStep;
      upper[u] = LoadStreaming(upper_row + column, has_upper && column < columns);
      lower[u] = LoadStreaming(lower_row + column, has_lower && column < columns);
    }
  }
};

// Puts together what the warps have of a block's outputs.
template <bool kGated>
__device__ void WriteOutputs(const Arguments& arguments, const SmallProductMatrix& matrix, int32_t first_output,
                             const float (&partial)[kWarps][kSmallProductRows][kTile]) {
  const int32_t r = threadIdx.x / kTile;
  const int32_t column = threadIdx.x % kTile;
  const int32_t output = first_output + column;
  float total = 0.0f;
  if (r < kSmallProductRows) {
    for (int w = 0; w < kWarps; ++w) total += partial[w][r][column];
  }
  if (kGated) {
    // The other half is 8 lanes further.
    const float gate = __bfloat162float(__float2bfloat16_rn(total));
    const float up = __shfl_down_sync(kAllLanes, gate, kTile / 2);
    total = gate / (1.0f + __expf(-gate)) * up;
    if (column >= kTile / 2) return;
  }
  if (r >= arguments.rows || output >= matrix.size) return;
  const int64_t place = r * matrix.stride + output;
  if (matrix.output != nullptr) {
    matrix.output[place] = __bfloat16_as_ushort(__float2bfloat16_rn(total));
  } else {
    matrix.float_output[place] = total;
  }
}

// A block computes kTile outputs of all rows; its warps share the columns. Which of a product's 32 columns goes to
// which place of a fragment does not matter, as long as both sides agree: so a lane takes 8 neighbouring ones at once.
// Gated, half of the outputs are gates, and the other half what passes through them.
template <bool kGated>
__global__ void __launch_bounds__(kThreads, 2) SmallProductKernel(const __grid_constant__ Arguments arguments) {
  int which = 0;
  while (which + 1 < arguments.count && static_cast<int32_t>(blockIdx.x) >= arguments.first_block[which + 1]) ++which;
  const SmallProductMatrix& matrix = arguments.matrices[which];
  const int32_t first_output =
      (static_cast<int32_t>(blockIdx.x) - arguments.first_block[which]) * (kGated ? kTile / 2 : kTile);
  const int lane = threadIdx.x % kWarpSize;
  const int warp = threadIdx.x / kWarpSize;
  const int32_t columns = arguments.columns;
  const int32_t upper = first_output + lane / 4;  // outputs of this lane's fragments
  const int32_t lower = kGated ? upper + matrix.size : upper + 8;
  const bool has_upper = upper < matrix.size;
  const bool has_lower = kGated ? has_upper : lower < matrix.size;
  const bool has_row = lane / 4 < arguments.rows;
  const uint16_t* upper_weights = matrix.weights + static_cast<int64_t>(has_upper ? upper : 0) * columns;
  const uint16_t* lower_weights = matrix.weights + static_cast<int64_t>(has_lower ? lower : 0) * columns;
  const uint16_t* x = arguments.x + static_cast<int64_t>(has_row ? lane / 4 : 0) * arguments.x_stride;

  // A warp takes every kWarps-th run of kUnroll steps, and asks for the next before it works on one. Weights are
  // nobody's result: the first are asked for before the kernel in front is done.
  const int32_t run = kUnroll * kStep;
  int32_t begin = warp * run + lane % 4 * 8;
  Steps weights, next;
  weights.LoadWeights(upper_weights, lower_weights, begin, columns, has_upper, has_lower);
  AwaitPrevious();
  // All blocks of this kernel have begun when those of the next do, which so take nobody's room; but where x is more
  // than a little, they would take its place in the cache.
  const bool early = arguments.rows <= kEarlyRows;
  if (early) LetNextBegin();
  float sums[4] = {};
  for (; begin - lane % 4 * 8 < columns; begin += kWarps * run) {
    Bf16x8 rows[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      rows[u] = LoadCached(x + begin + u * kStep, has_row && begin + u * kStep < columns);
    }
    next.LoadWeights(upper_weights, lower_weights, begin + kWarps * run, columns, has_upper, has_lower);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const uint32_t(&a)[4] = weights.upper[u].words;
      const uint32_t(&b)[4] = weights.lower[u].words;
      MultiplyAdd({a[0], b[0], a[1], b[1]}, rows[u].words[0], rows[u].words[1], sums);
      MultiplyAdd({a[2], b[2], a[3], b[3]}, rows[u].words[2], rows[u].words[3], sums);
    }
    weights = next;
  }

  if (!early) LetNextBegin();

  __shared__ float partial[kWarps][kSmallProductRows][kTile];
  const int row = lane % 4 * 2;
  partial[warp][row][lane / 4] = sums[0];
  partial[warp][row + 1][lane / 4] = sums[1];
  partial[warp][row][lane / 4 + 8] = sums[2];
  partial[warp][row + 1][lane / 4 + 8] = sums[3];
  __syncthreads();
  WriteOutputs<kGated>(arguments, matrix, first_output, partial);
}

}  // namespace

int SmallProduct(const SmallProductMatrix* matrices, int32_t count, const uint16_t* x, int64_t x_stride, int32_t rows,
                 int32_t columns, CUstream_st* stream) {
  Arguments arguments = {};
  int32_t blocks = 0;
  for (int32_t i = 0; i < count; ++i) {
    arguments.matrices[i] = matrices[i];
    arguments.first_block[i] = blocks;
    blocks += (matrices[i].size + kTile - 1) / kTile;
  }
  arguments.count = count;
  arguments.x = x;
  arguments.x_stride = x_stride;
  arguments.rows = rows;
  arguments.columns = columns;
  return LaunchEarly(SmallProductKernel<false>, dim3(blocks), kThreads, 0, stream, arguments);
}

int SmallGatedProduct(const SmallProductMatrix& matrix, const uint16_t* x, int64_t x_stride, int32_t rows,
                      int32_t columns, CUstream_st* stream) {
  Arguments arguments = {};
  arguments.matrices[0] = matrix;
  arguments.count = 1;
  arguments.x = x;
  arguments.x_stride = x_stride;
  arguments.rows = rows;
  arguments.columns = columns;
  const int32_t blocks = (matrix.size + kTile / 2 - 1) / (kTile / 2);
  return LaunchEarly(SmallProductKernel<true>, dim3(blocks), kThreads, 0, stream, arguments);
}

int SmallProducts(std::vector<SmallProductMatrix> matrices, const uint16_t* x, int64_t x_stride, int32_t rows,
                  int32_t columns, CUstream_st* stream) {
  const int32_t size = static_cast<int32_t>(matrices.size());
  for (int32_t row = 0; row < rows; row += kSmallProductRows) {
    const int32_t count = std::min(rows - row, kSmallProductRows);
    for (int32_t i = 0; i < size; i += kSmallProductMatrices) {
      const int error = SmallProduct(&matrices[i], std::min(size - i, kSmallProductMatrices), x + row * x_stride,
                                     x_stride, count, columns, stream);
      if (error != cudaSuccess) return error;
    }
    for (SmallProductMatrix& matrix : matrices) {
      if (matrix.output != nullptr) matrix.output += count * matrix.stride;
      if (matrix.float_output != nullptr) matrix.float_output += count * matrix.stride;
    }
  }
  return cudaSuccess;
}

}  // namespace fermata::kernels::cuda
