#include <cuda_runtime.h>

#include "kernels/cuda/bf16_ops.cuh"
#include "kernels/cuda/paged_attention.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int kWarpQueries = 16;
constexpr int kDecodeWarps = 4;
constexpr int kPrefillWarps = kPrefillQueries / kWarpQueries;
constexpr float kMinusInfinity = -__builtin_huge_valf();
constexpr float kLog2E = 1.4426950408889634f;

// Shared memory holds two stages of [K, V][kAttentionTile][kHead + 8]: with 8 elements more a row, eight rows lie in
// different banks.
template <int kHead>
constexpr int kRowStride = kHead + 8;
template <int kHead>
constexpr int kTileElements = kAttentionTile* kRowStride<kHead>;
template <int kHead>
constexpr int kSharedBytes = 2 * 2 * kTileElements<kHead>* static_cast<int>(sizeof(uint16_t));

struct Query {
  int64_t q_offset;  // of its first element
  int64_t offset;    // likewise, in the output
  int32_t position;  // the last that it attends to
};

__device__ Query QueryAt(const AttentionInput& input, const AttentionItem& item, int32_t index) {
  const int32_t group = input.head_count / input.kv.kv_head_count;
  const int32_t count = item.query_count * group;
  const int32_t i = index < count ? index : count - 1;  // beyond: some query, whose result is not kept
  const int32_t token = item.first_query + i / group;
  const int64_t row = item.segment.first_row + token;
  const int32_t head = blockIdx.y * group + i % group;
  const int64_t size = input.kv.head_size;
  return {row * input.q_stride + head * size, (row * input.head_count + head) * size,
          min(item.segment.first_position + token, item.end - 1)};
}

// Asks for keys and values of positions begin .. begin + kAttentionTile; zeros from `end` on.
template <int kHead, int kThreads>
__device__ void LoadTile(const AttentionInput& input, const AttentionItem& item, int32_t begin, uint16_t* keys) {
  constexpr int kPieces = kHead / 8;
  const KvLayer& kv = input.kv;
  const int64_t head_elements = static_cast<int64_t>(kv.block_tokens) * kHead;
  const int64_t values = kv.kv_head_count * head_elements;
  const uint16_t* head = kv.data + blockIdx.y * head_elements;
  const int32_t* blocks = input.blocks + item.segment.first_block;
#pragma unroll 8
  for (int i = threadIdx.x; i < kAttentionTile * kPieces; i += kThreads) {
    const int row = i / kPieces;
    const int column = i % kPieces * 8;
    const int32_t position = begin + row;
    const bool valid = position < item.end;
    const uint32_t place = valid ? position : item.begin;
    const uint32_t tokens = kv.block_tokens;
    const uint16_t* from =
        head + blocks[place / tokens] * kv.block_stride + static_cast<int64_t>(place % tokens) * kHead + column;
    uint16_t* to = keys + row * kRowStride<kHead> + column;
    CopyAsync(to, from, valid);
    CopyAsync(to + kTileElements<kHead>, from + values, valid);
  }
}

// A warp's kWarpQueries queries, and what it knows of them so far.
template <int kHead>
struct WarpState {
  uint32_t q[kHead / 16][4];
  float output[kHead / 8][4] = {};
  float maximum[2] = {kMinusInfinity, kMinusInfinity};  // of scores times log2(e), for rows lane / 4 and 8 further
  float sum[2] = {};                                    // this lane's part

  __device__ void LoadQueries(const uint16_t* q_data, const Query& upper, const Query& lower) {
    const int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int c = 0; c < kHead / 16; ++c) {
      const uint16_t* upper_q = q_data + upper.q_offset + c * 16 + column;
      const uint16_t* lower_q = q_data + lower.q_offset + c * 16 + column;
      q[c][0] = *reinterpret_cast<const uint32_t*>(upper_q);
      q[c][1] = *reinterpret_cast<const uint32_t*>(lower_q);
      q[c][2] = *reinterpret_cast<const uint32_t*>(upper_q + 8);
      q[c][3] = *reinterpret_cast<const uint32_t*>(lower_q + 8);
    }
  }

  // Leaves out positions beyond `last`: column n of scores is position first + n.
  template <int kTiles>
  __device__ void Mask(int32_t first, const int32_t (&last)[2], float (&scores)[kTiles][4]) {
    if (first + kTiles * 8 - 1 <= min(last[0], last[1])) return;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (first + j * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + e % 2 > last[e / 2]) scores[j][e] = kMinusInfinity;
      }
    }
  }

  // kPositions positions from `first` on, whose keys and values are rows of a tile in shared memory.
  template <int kPositions>
  __device__ void Attend(const uint16_t* keys, int32_t first, const int32_t (&last)[2], float scale) {
    const int lane = threadIdx.x % kWarpSize;
    float scores[kPositions / 8][4] = {};
    const uint16_t* key = keys + (lane / 16 * 8 + lane % 8) * kRowStride<kHead> + lane / 8 % 2 * 8;
#pragma unroll
    for (int c = 0; c < kHead / 16; ++c) {
#pragma unroll
      for (int n = 0; n < kPositions / 16; ++n) {
        uint32_t tiles[4];
        LoadTiles(key + n * 16 * kRowStride<kHead> + c * 16, tiles);
        MultiplyAdd(q[c], tiles[0], tiles[1], scores[2 * n]);
        MultiplyAdd(q[c], tiles[2], tiles[3], scores[2 * n + 1]);
      }
    }
    Mask(first, last, scores);
    float highest[2] = {kMinusInfinity, kMinusInfinity};
#pragma unroll
    for (int j = 0; j < kPositions / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) highest[e / 2] = fmaxf(highest[e / 2], scores[j][e]);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(kAllLanes, highest[r], 1));
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(kAllLanes, highest[r], 2));
      highest[r] = fmaxf(maximum[r], highest[r] * scale);  // the scale is above 0
      // Nothing attended to yet: any finite base will do.
      const float base = highest[r] == kMinusInfinity ? 0.0f : highest[r];
      const float factor = FastExp2(maximum[r] - base);
      maximum[r] = highest[r];
      highest[r] = base;
      sum[r] *= factor;
#pragma unroll
      for (int d = 0; d < kHead / 8; ++d) {
        output[d][2 * r] *= factor;
        output[d][2 * r + 1] *= factor;
      }
    }
    const uint16_t* value =
        keys + kTileElements<kHead> + (lane / 8 % 2 * 8 + lane % 8) * kRowStride<kHead> + lane / 16 * 8;
#pragma unroll
    for (int n = 0; n < kPositions / 16; ++n) {
      uint32_t weights[4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float* pair = scores[2 * n + half];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          pair[e] = FastExp2(fmaf(pair[e], scale, -highest[e / 2]));
          sum[e / 2] += pair[e];
        }
        weights[2 * half] = PackBf16(pair[0], pair[1]);
        weights[2 * half + 1] = PackBf16(pair[2], pair[3]);
      }
#pragma unroll
      for (int d = 0; d < kHead / 16; ++d) {
        uint32_t tiles[4];
        LoadTilesTransposed(value + n * 16 * kRowStride<kHead> + d * 16, tiles);
        MultiplyAdd(weights, tiles[0], tiles[1], output[2 * d]);
        MultiplyAdd(weights, tiles[2], tiles[3], output[2 * d + 1]);
      }
    }
  }

  __device__ void FinishSums() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 1);
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 2);
    }
  }
};

// One row of a partial result: kHead sums of values, the maximum of the scores, the sum of the weights.
template <int kHead>
constexpr int kPartialStride = kHead + 2;

__device__ int64_t PartialOffset(const AttentionInput& input, int32_t place, int32_t query, int32_t stride) {
  const int32_t group = input.head_count / input.kv.kv_head_count;
  const int32_t queries = max(group, kDecodeQueries);
  return ((static_cast<int64_t>(place) * input.kv.kv_head_count + blockIdx.y) * queries + query) * stride;
}

// What this warp has of a piece, for MergePieces().
template <int kHead>
__device__ void WritePiece(const AttentionInput& input, const AttentionItem& item, int32_t first_query,
                           const WarpState<kHead>& state) {
  const int lane = threadIdx.x % kWarpSize;
  const int32_t count = item.query_count * (input.head_count / input.kv.kv_head_count);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int32_t query = first_query + lane / 4 + 8 * r;
    if (query >= count) continue;
    float* partial = input.partials + PartialOffset(input, item.partial, query, kPartialStride<kHead>);
#pragma unroll
    for (int d = 0; d < kHead / 8; ++d) {
      *reinterpret_cast<float2*>(partial + d * 8 + lane % 4 * 2) =
          make_float2(state.output[d][2 * r], state.output[d][2 * r + 1]);
    }
    if (lane % 4 != 0) continue;
    partial[kHead] = state.maximum[r];
    partial[kHead + 1] = state.sum[r];
  }
}

// Of the blocks that have written pieces of the same queries, the last puts them together, in their order.
template <int kHead, int kThreads>
__device__ void MergePieces(const AttentionInput& input, const AttentionItem& item) {
  __shared__ bool is_last;
  const int32_t place = item.partial - item.partial_index;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t* ticket = input.tickets + place * input.kv.kv_head_count + blockIdx.y;
    is_last = atomicAdd(ticket, 1u) + 1 == static_cast<uint32_t>(item.partial_count);
    if (is_last) *ticket = 0;
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  const int32_t count = item.query_count * (input.head_count / input.kv.kv_head_count);
  AttentionItem whole = item;
  whole.end = item.segment.first_position + item.segment.row_count;
  const int64_t step =
      PartialOffset(input, 1, 0, kPartialStride<kHead>) - PartialOffset(input, 0, 0, kPartialStride<kHead>);
  for (int i = threadIdx.x; i < count * kHead; i += kThreads) {
    const int query = i / kHead;
    const int column = i % kHead;
    const float* partial = input.partials + PartialOffset(input, place, query, kPartialStride<kHead>);
    float maximum = kMinusInfinity;
#pragma unroll 8
    for (int p = 0; p < item.partial_count; ++p) maximum = fmaxf(maximum, __ldcg(partial + p * step + kHead));
    float total = 0.0f;
    float sum = 0.0f;
#pragma unroll 8
    for (int p = 0; p < item.partial_count; ++p) {
      const float factor = exp2f(__ldcg(partial + p * step + kHead) - maximum);
      total += factor * __ldcg(partial + p * step + column);
      sum += factor * __ldcg(partial + p * step + kHead + 1);
    }
    const Query to = QueryAt(input, whole, query);
    input.output[to.offset + column] = __bfloat16_as_ushort(__float2bfloat16_rn(total / sum));
  }
}

// A block takes one item and one KV head; each warp has its own queries and takes all positions. Warps without queries
// help to bring the tiles.
template <int kHead, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarpSize, kWarps == kDecodeWarps ? 2 : 1)
    AttentionKernel(const __grid_constant__ AttentionInput input, float scale) {
  extern __shared__ __align__(16) uint16_t shared[];
  constexpr int kThreads = kWarps * kWarpSize;
  // Tables and what earlier steps have stored are there before the kernel in front is done.
  const AttentionItem item = input.items[blockIdx.x];
  if (item.query_count == 0) {
    AwaitPrevious();  // so that whoever waits for this kernel waits for those in front of it
    return;
  }
  const int warp = threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  const int32_t first_query = warp * kWarpQueries;
  const bool has_queries = first_query < item.query_count * (input.head_count / input.kv.kv_head_count);
  const Query upper = QueryAt(input, item, first_query + lane / 4);
  const Query lower = QueryAt(input, item, first_query + lane / 4 + 8);
  const int32_t last[2] = {upper.position, lower.position};

  const bool is_old = item.begin + kAttentionTile <= item.segment.first_position;
  if (!is_old) AwaitPrevious();
  LoadTile<kHead, kThreads>(input, item, item.begin, shared);
  CommitCopies();
  if (is_old) AwaitPrevious();
  WarpState<kHead> state;
  state.LoadQueries(input.q, upper, lower);
  int stage = 0;
  for (int32_t begin = item.begin; begin < item.end; begin += kAttentionTile, stage ^= 1) {
    if (begin + kAttentionTile < item.end) {
      LoadTile<kHead, kThreads>(input, item, begin + kAttentionTile, shared + (stage ^ 1) * 2 * kTileElements<kHead>);
    }
    CommitCopies();
    AwaitCopies<1>();
    __syncthreads();
    if (has_queries) {
      state.template Attend<kAttentionTile>(shared + stage * 2 * kTileElements<kHead>, begin, last, scale);
    }
    __syncthreads();
  }
  LetNextBegin();
  AwaitCopies<0>();
  state.FinishSums();
  if (item.partial >= 0) {
    if (has_queries) WritePiece<kHead>(input, item, first_query, state);
    MergePieces<kHead, kThreads>(input, item);
    return;
  }
  const int32_t count = item.query_count * (input.head_count / input.kv.kv_head_count);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (first_query + lane / 4 + 8 * r >= count) continue;
    uint16_t* to = input.output + (r == 0 ? upper.offset : lower.offset) + lane % 4 * 2;
    const float factor = 1.0f / state.sum[r];
#pragma unroll
    for (int d = 0; d < kHead / 8; ++d) {
      *reinterpret_cast<uint32_t*>(to + d * 8) =
          PackBf16(state.output[d][2 * r] * factor, state.output[d][2 * r + 1] * factor);
    }
  }
}

template <int kHead, int kWarps>
int Launch(const AttentionInput& input, cudaStream_t stream) {
  const auto kernel = AttentionKernel<kHead, kWarps>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes<kHead>);
  if (allowed != cudaSuccess) return allowed;
  const dim3 grid(input.item_count, input.kv.kv_head_count);
  const float scale = kLog2E / sqrtf(static_cast<float>(kHead));
  return LaunchEarly(kernel, grid, kWarps * kWarpSize, kSharedBytes<kHead>, stream, input, scale);
}

template <int kWarps>
int LaunchForHead(const AttentionInput& input, cudaStream_t stream) {
  if (input.item_count == 0) return cudaSuccess;
  switch (input.kv.head_size) {
    case 16:
      return Launch<16, kWarps>(input, stream);
    case 32:
      return Launch<32, kWarps>(input, stream);
    case 64:
      return Launch<64, kWarps>(input, stream);
    case 80:
      return Launch<80, kWarps>(input, stream);
    case 96:
      return Launch<96, kWarps>(input, stream);
    case 128:
      return Launch<128, kWarps>(input, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

bool ServesHeadSize(int32_t head_size) {
  return head_size == 16 || head_size == 32 || head_size == 64 || head_size == 80 || head_size == 96 ||
         head_size == 128;
}

int64_t PartialFloats(int32_t head_count, const KvLayer& kv) {
  const int32_t group = head_count / kv.kv_head_count;
  return static_cast<int64_t>(kv.kv_head_count) * max(group, kDecodeQueries) * (kv.head_size + 2);
}

int DecodeAttention(const AttentionInput& input, CUstream_st* stream) {
  const int32_t group = input.head_count / input.kv.kv_head_count;
  // One warp's queries are enough but for the largest groups.
  return group <= kDecodeWarps * kWarpQueries ? LaunchForHead<kDecodeWarps>(input, stream)
                                              : LaunchForHead<kPrefillWarps>(input, stream);
}

int PrefillAttention(const AttentionInput& input, CUstream_st* stream) {
  return LaunchForHead<kPrefillWarps>(input, stream);
}

}  // namespace fermata::kernels::cuda
