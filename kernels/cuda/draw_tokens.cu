#include <cuda_runtime.h>

#include "kernels/cuda/bf16_ops.cuh"
#include "kernels/cuda/draw_tokens.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kEach = 8;  // neighbouring logits of a thread
constexpr int kPiece = kThreads * kEach;
constexpr int kMaxPieces = 1024;
constexpr float kMinusInfinity = -__builtin_huge_valf();

// A place of a maximum; the lower one among equals. NaN is kept apart: at -1, whatever the rest is.
struct Best {
  float value = kMinusInfinity;
  int32_t place = 0x7fffffff;

  __device__ void Take(float other_value, int32_t other_place) {
    if (other_place < 0 || place < 0) {
      place = -1;
    } else if (other_value > value || (other_value == value && other_place < place)) {
      value = other_value;
      place = other_place;
    }
  }
  __device__ void TakeOverWarp() {
    for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, value, distance);
      Take(other, __shfl_xor_sync(kAllLanes, place, distance));
    }
  }
};

// Of the block; all threads get it.
__device__ Best BestOverBlock(Best best) {
  __shared__ Best shared[kWarps];
  best.TakeOverWarp();
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = best;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) best.Take(shared[w].value, shared[w].place);
  __syncthreads();
  return best;
}

__device__ float Weight(float logit, float maximum, float inverse) { return expf((logit - maximum) * inverse); }

// In the order of threads: the sum of all before this one, and of all.
__device__ float SumBefore(float value, float* total) {
  __shared__ float sums[kWarps];
  const int lane = threadIdx.x % kWarpSize;
  float inclusive = value;
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    const float other = __shfl_up_sync(kAllLanes, inclusive, distance);
    if (lane >= distance) inclusive += other;
  }
  if (lane == kWarpSize - 1) sums[threadIdx.x / kWarpSize] = inclusive;
  __syncthreads();
  float before = 0.0f;
  *total = 0.0f;
  for (int w = 0; w < kWarps; ++w) {
    if (w < static_cast<int>(threadIdx.x) / kWarpSize) before += sums[w];
    *total += sums[w];
  }
  __syncthreads();
  const float exclusive = __shfl_up_sync(kAllLanes, inclusive, 1);
  return lane == 0 ? before : before + exclusive;
}

__device__ void LoadLogits(const float* row, int32_t first, int32_t size, float (&logits)[kEach]) {
  if (size % 4 == 0 && first + kEach <= size) {  // rows follow each other, and are aligned then
#pragma unroll
    for (int i = 0; i < kEach; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(row + first + i);
      logits[i] = four.x;
      logits[i + 1] = four.y;
      logits[i + 2] = four.z;
      logits[i + 3] = four.w;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) logits[i] = first + i < size ? row[first + i] : kMinusInfinity;
}

__global__ void PieceKernel(const float* logits, int32_t size, const Backend::Draw* draws, LogitsPiece* pieces) {
  AwaitPrevious();
  const int32_t first = static_cast<int32_t>(blockIdx.x) * kPiece + static_cast<int32_t>(threadIdx.x) * kEach;
  float values[kEach];
  LoadLogits(logits + static_cast<int64_t>(blockIdx.y) * size, first, size, values);
  Best best;
#pragma unroll
  for (int i = 0; i < kEach; ++i) best.Take(values[i], isnan(values[i]) ? -1 : first + i);
  best = BestOverBlock(best);
  LogitsPiece piece = {best.value, 0.0f, best.place};
  const float temperature = draws[blockIdx.y].temperature;
  if (temperature > 0.0f && best.value > kMinusInfinity) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kEach; ++i) sum += Weight(values[i], best.value, 1.0f / temperature);
    SumBefore(sum, &piece.sum);
  }
  if (threadIdx.x == 0) pieces[blockIdx.y * gridDim.x + blockIdx.x] = piece;
}

// One block a row.
__global__ void ChooseKernel(const float* logits, int32_t size, const Backend::Draw* draws, const LogitsPiece* pieces,
                             int32_t piece_count, int32_t* tokens) {
  AwaitPrevious();
  const int64_t row = blockIdx.x;
  pieces += row * piece_count;
  logits += row * size;
  const Backend::Draw draw = draws[row];
  Best best;
  for (int32_t p = threadIdx.x; p < piece_count; p += kThreads) best.Take(pieces[p].maximum, pieces[p].best);
  best = BestOverBlock(best);
  const bool none = best.place < 0 || !(best.value > kMinusInfinity) || isinf(best.value);
  if (none || draw.temperature == 0.0f) {
    if (threadIdx.x == 0) tokens[row] = none ? -1 : best.place;
    return;
  }
  const float inverse = 1.0f / draw.temperature;
  // The piece that the share falls into: in doubles, one after the other, as there are few.
  __shared__ double shares[kMaxPieces];
  __shared__ double target;
  __shared__ int32_t chosen;
  __shared__ int32_t token;
  for (int32_t p = threadIdx.x; p < piece_count; p += kThreads) {
    const LogitsPiece piece = pieces[p];
    shares[p] = piece.sum > 0.0f ? double(piece.sum) * Weight(piece.maximum, best.value, inverse) : 0.0;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double rest = 0;
    for (int32_t p = 0; p < piece_count; ++p) rest += shares[p];
    rest *= draw.uniform;
    int32_t p = 0;
    while (p < piece_count && !(shares[p] > rest)) rest -= shares[p++];
    chosen = p < piece_count ? p : best.place / kPiece;  // rounding may leave a crumb
    token = p < piece_count ? pieces[p].best : best.place;
    target = rest;
  }
  __syncthreads();
  const int32_t first = chosen * kPiece + static_cast<int32_t>(threadIdx.x) * kEach;
  float values[kEach];
  LoadLogits(logits, first, size, values);
  float own = 0.0f;
#pragma unroll
  for (int i = 0; i < kEach; ++i) own += Weight(values[i], best.value, inverse);
  float total;
  const float before = SumBefore(own, &total);
  // The first whose sum is above the target: in the first thread that has one. The sums are relative to the row's
  // maximum, as the target is.
  int32_t found = 0x7fffffff;
#pragma unroll
  for (int i = kEach - 1; i >= 0; --i) {
    float sum = before;
#pragma unroll
    for (int e = 0; e <= i; ++e) sum += Weight(values[e], best.value, inverse);
    if (sum > target && values[i] > kMinusInfinity) found = first + i;
  }
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    found = min(found, __shfl_xor_sync(kAllLanes, found, distance));
  }
  __shared__ int32_t firsts[kWarps];
  if (threadIdx.x % kWarpSize == 0) firsts[threadIdx.x / kWarpSize] = found;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 0; w < kWarps; ++w) found = min(found, firsts[w]);
  tokens[row] = found < size ? found : token;
}

}  // namespace

int32_t LogitsPieces(int32_t size) { return (size + kPiece - 1) / kPiece; }

int DrawTokens(const float* logits, int32_t rows, int32_t size, const Backend::Draw* draws, LogitsPiece* pieces,
               int32_t* tokens, CUstream_st* stream) {
  if (rows == 0) return cudaSuccess;
  const int32_t count = LogitsPieces(size);
  if (count > kMaxPieces) return cudaErrorInvalidValue;
  const cudaError_t error =
      LaunchEarly(PieceKernel, dim3(count, rows), kThreads, 0, stream, logits, size, draws, pieces);
  if (error != cudaSuccess) return error;
  return LaunchEarly(ChooseKernel, dim3(rows), kThreads, 0, stream, logits, size, draws, pieces, count, tokens);
}

}  // namespace fermata::kernels::cuda
