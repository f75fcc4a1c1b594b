#include <cuda.h>
#include <cuda_runtime.h>

#include "kernels/cuda/bf16_ops.cuh"
#include "kernels/cuda/hopper_decode.h"
#include "kernels/cuda/warpgroup_ops.cuh"

namespace fermata::kernels::cuda {
namespace {

constexpr int kHead = 128;
constexpr int kTile = kHopperDecodeTile;
constexpr int kWarps = 4;  // that compute
constexpr int kComputing = kWarps * kWarpSize;
constexpr int kThreads = kComputing + kWarpSize;  // and one warp that brings tiles
constexpr int kStages = 3;
constexpr uint32_t kStageBytes = 2 * kTile * kHead * 2;
constexpr int kMerged = 4;             // queries that the warps put together at a time
constexpr int kRowFloats = kHead + 4;  // sums of values, the maximum, the sum of weights, and two for alignment
constexpr uint32_t kMergeBytes = kWarps * kMerged * kRowFloats * 4;
constexpr uint32_t kTurnBytes = kHead / 2 * 8;
constexpr uint32_t kSharedBytes = 1024 + kStages * kStageBytes + kMergeBytes + kTurnBytes + 2 * kStages * 8 + 8;
constexpr float kLog2E = 1.4426950408889634f;

// How the pool's rows of one slot of one head count, and blocks of tokens.
struct Rows {
  int32_t block;  // rows of a block
  int32_t first;  // of this layer's first head's keys
  int32_t tokens;
  int32_t kv_heads;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kEach = kTile / kWarps;  // positions of every tile that a warp takes
constexpr float kMinusInfinity = -__builtin_huge_valf();

// A share's runs: tiles of one head that follow each other.
struct Run {
  DecodeUnit unit;
  int32_t index;
  int32_t head;
  int32_t place;
  int32_t end;  // of the share

  __device__ explicit Run(const DecodeShare& share)
      : unit{share.segment, share.tiles, share.stride, share.first, 0},
        index(share.unit),
        head(share.head),
        place(share.place),
        end(share.place + share.size) {}

  __device__ bool Valid() const { return place < end; }
  __device__ int32_t First() const { return unit.first + head * unit.stride; }  // place of the head's first tile
  __device__ int32_t BeginTile() const { return place - First(); }
  __device__ int32_t EndTile() const { return min(unit.tiles, end - First()); }
  __device__ int32_t Length() const { return unit.segment.first_position + unit.segment.row_count; }
  __device__ void Next(const DecodeUnit* units, int32_t kv_heads) {
    if (++head == kv_heads) {
      head = 0;
      unit = units[++index];
    }
    place = First();
  }
};

// Of tile n that a block of threads takes: its stage, and which time that is used.
__device__ int Stage(int n) { return n % kStages; }
__device__ uint32_t Turn(int n) { return static_cast<uint32_t>(n / kStages) & 1; }

// Addresses in shared memory.
struct Places {
  uint32_t stages;
  uint32_t barriers;
  __device__ uint32_t Full(int stage) const { return barriers + stage * 8; }
  __device__ uint32_t Free(int stage) const { return barriers + (kStages + stage) * 8; }
};

// Brings keys and values of one head in one block of tokens.
__device__ void BringBlock(uint32_t to, const void* map, int32_t row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %2, %2}], "
      "[%4];\n" ::"r"(to),
      "l"(map), "r"(0), "r"(row), "r"(barrier)
      : "memory");
}

// One warp: a lane brings one block of each tile.
__device__ void BringTiles(const HopperDecodeInput& input, const Rows& rows, const void* map, const Places& places) {
  const int lane = threadIdx.x % kWarpSize;
  const uint32_t block_bytes = rows.tokens * kHead * 2 * 2;
  const int32_t tile_blocks = kTile / rows.tokens;
  // What the kernel in front stored; of rows that this one stores, it brings what nobody looks at.
  bool awaited = input.rope.frequencies != nullptr;
  int n = 0;
  for (int32_t s = blockIdx.x;; s += gridDim.x) {
    const DecodeShare share = input.shares[s];
    for (Run run(share); share.count > 0 && run.Valid(); run.Next(input.units, rows.kv_heads)) {
      const int32_t* blocks = input.blocks + run.unit.segment.first_block;
      const int32_t block_count = (run.Length() + rows.tokens - 1) / rows.tokens;
      const int32_t first = rows.first + run.head * rows.tokens;
      for (int32_t tile = run.BeginTile(); tile < run.EndTile(); ++tile, ++n) {
        const int32_t count = min(block_count - tile * tile_blocks, tile_blocks);
        const int32_t block = lane < count ? blocks[tile * tile_blocks + lane] : 0;
        const uint32_t full = places.Full(Stage(n));
        if (n >= kStages) AwaitBarrier(places.Free(Stage(n)), Turn(n) ^ 1);
        if (!awaited && (tile + 1) * kTile > run.unit.segment.first_position) {
          AwaitPrevious();
          awaited = true;
        }
        if (lane == 0) ArriveExpecting(full, count * block_bytes);
        __syncwarp();
        if (lane < count) {
          BringBlock(places.stages + Stage(n) * kStageBytes + lane * block_bytes, map, block * rows.block + first,
                     full);
        }
      }
    }
    if (s + static_cast<int32_t>(gridDim.x) >= share.count) break;
  }
}

struct Query {
  int64_t q_offset;  // of its first element
  int64_t offset;    // likewise, in the output
  int32_t position;  // the last that it attends to
};

// Beyond the last: some query, whose result is not kept.
__device__ Query QueryAt(const HopperDecodeInput& input, const Run& run, int32_t group, int32_t index) {
  const KvSegment& segment = run.unit.segment;
  const int32_t i = min(index, segment.row_count * group - 1);
  const int64_t row = segment.first_row + i / group;
  const int32_t head = run.head * group + i % group;
  return {row * input.q_stride + head * kHead, (row * input.head_count + head) * kHead,
          segment.first_position + i / group};
}

// Where a lane's rows of a stage are: those of its loads of keys and of values.
struct LaneRows {
  uint32_t key;
  uint32_t value;
  uint32_t half;  // bytes from 64 columns to the next 64
  uint32_t key_turn;
  uint32_t value_turn;

  __device__ LaneRows(const Rows& rows, int warp, int lane) {
    const int key_row = warp * kEach + lane / 16 * 8 + lane % 8;
    const int value_row = warp * kEach + lane / 8 % 2 * 8 + lane % 8;
    half = rows.tokens * 128;
    key = Offset(rows, key_row);
    value = Offset(rows, value_row) + 2 * half;
    key_turn = key_row % 8;
    value_turn = value_row % 8;
  }
  __device__ static uint32_t Offset(const Rows& rows, int row) {
    return row / rows.tokens * (rows.tokens * kHead * 4) + row % rows.tokens * 128;
  }
};

// Sine and cosine of a run's position, for each pair of a head.
__device__ void FindTurns(const float* frequencies, int32_t position, float2* turns) {
  if (threadIdx.x < kHead / 2) {
    float2 turn;
    sincosf(static_cast<float>(position) * frequencies[threadIdx.x], &turn.x, &turn.y);
    turns[threadIdx.x] = turn;
  }
  SyncSome<kComputing>();
}

__device__ uint32_t Rotate(uint32_t pair, const float2& turn) {
  const float x = LowFloat(pair);
  const float y = HighFloat(pair);
  return PackBf16(x * turn.y - y * turn.x, x * turn.x + y * turn.y);
}

// The key and the value that a run stores: four elements of a lane.
struct NewRow {
  uint2 key;
  uint2 value;

  __device__ void Load(const DecodeRope& rope, const Run& run, const float2* turns) {
    const int lane = threadIdx.x % kWarpSize;
    const int64_t row = run.unit.segment.first_row;
    key = *reinterpret_cast<const uint2*>(rope.k + row * rope.k_stride + run.head * kHead + lane * 4);
    value = *reinterpret_cast<const uint2*>(rope.v + row * rope.v_stride + run.head * kHead + lane * 4);
    key.x = Rotate(key.x, turns[2 * lane]);
    key.y = Rotate(key.y, turns[2 * lane + 1]);
  }

  // To the cache, and to the stage, which has what was there before.
  __device__ void Store(const DecodeRope& rope, const Rows& rows, const Run& run, int32_t block, uint8_t* stage) const;
};

// What a warp knows of its positions so far: rows lane / 4 and 8 further of the queries.
struct WarpState {
  uint32_t q[kHead / 16][4];
  float output[kHead / 8][4];
  float maximum[2];  // of scores times the scale
  float sum[2];      // this lane's part

  __device__ void Begin(const uint16_t* q_data, const Query& upper, const Query& lower) {
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
#pragma unroll
    for (int d = 0; d < kHead / 8; ++d) {
#pragma unroll
      for (int e = 0; e < 4; ++e) output[d][e] = 0.0f;
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      maximum[r] = kMinusInfinity;
      sum[r] = 0.0f;
    }
  }

  __device__ void Rotate(const float2* turns) {
    const float2* turn = turns + threadIdx.x % 4;
#pragma unroll
    for (int c = 0; c < kHead / 16; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) q[c][i] = cuda::Rotate(q[c][i], turn[c * 8 + i / 2 * 4]);
    }
  }

  // kEach positions from `first` on.
  __device__ void Attend(const uint8_t* stage, const LaneRows& rows, int32_t first, const int32_t (&last)[2],
                         float scale) {
    const int lane = threadIdx.x % kWarpSize;
    float scores[2][4] = {};
#pragma unroll
    for (int c = 0; c < kHead / 16; ++c) {
      const uint32_t piece = c % 4 * 2 + lane / 8 % 2;
      uint32_t tiles[4];
      LoadTiles(stage + rows.key + c / 4 * rows.half + ((piece ^ rows.key_turn) << 4), tiles);
      MultiplyAdd(q[c], tiles[0], tiles[1], scores[0]);
      MultiplyAdd(q[c], tiles[2], tiles[3], scores[1]);
    }
    if (first + kEach - 1 > min(last[0], last[1])) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int32_t position = first + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (position > last[i % 4 / 2]) scores[i / 4][i % 4] = kMinusInfinity;
      }
    }
    float base[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float highest =
          fmaxf(fmaxf(scores[0][2 * r], scores[0][2 * r + 1]), fmaxf(scores[1][2 * r], scores[1][2 * r + 1]));
      highest = fmaxf(highest, __shfl_xor_sync(kAllLanes, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(kAllLanes, highest, 2));
      highest = fmaxf(maximum[r], highest * scale);  // the scale is above 0
      // Nothing attended to yet: any finite base will do.
      base[r] = highest == kMinusInfinity ? 0.0f : highest;
      const float factor = FastExp2(maximum[r] - base[r]);
      maximum[r] = highest;
      sum[r] *= factor;
#pragma unroll
      for (int d = 0; d < kHead / 8; ++d) {
        output[d][2 * r] *= factor;
        output[d][2 * r + 1] *= factor;
      }
    }
    uint32_t weights[4];
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        scores[n][e] = FastExp2(fmaf(scores[n][e], scale, -base[e / 2]));
        sum[e / 2] += scores[n][e];
      }
      weights[2 * n] = PackBf16(scores[n][0], scores[n][1]);
      weights[2 * n + 1] = PackBf16(scores[n][2], scores[n][3]);
    }
#pragma unroll
    for (int d = 0; d < kHead / 16; ++d) {
      const uint32_t piece = d % 4 * 2 + lane / 16;
      uint32_t tiles[4];
      LoadTilesTransposed(stage + rows.value + d / 4 * rows.half + ((piece ^ rows.value_turn) << 4), tiles);
      MultiplyAdd(weights, tiles[0], tiles[1], output[2 * d]);
      MultiplyAdd(weights, tiles[2], tiles[3], output[2 * d + 1]);
    }
  }

  __device__ void FinishSums() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 1);
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 2);
    }
  }

  // Rows kMerged * pass and on, for the other warps.
  __device__ void Show(int pass, float* merge) const {
    const int lane = threadIdx.x % kWarpSize;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = lane / 4 + 8 * r;
      if (row / kMerged != pass) continue;
      float* to = merge + (threadIdx.x / kWarpSize * kMerged + row % kMerged) * kRowFloats;
#pragma unroll
      for (int d = 0; d < kHead / 8; ++d) {
        *reinterpret_cast<float2*>(to + d * 8 + lane % 4 * 2) = make_float2(output[d][2 * r], output[d][2 * r + 1]);
      }
      if (lane % 4 == 0) *reinterpret_cast<float2*>(to + kHead) = make_float2(maximum[r], sum[r]);
    }
  }
};

// Several rows of sums, as they are put together: four columns of a lane.
struct Merged {
  float4 total = {0.0f, 0.0f, 0.0f, 0.0f};
  float sum = 0.0f;

  __device__ void Add(float factor, const float4& values, float weight) {
    total.x += factor * values.x;
    total.y += factor * values.y;
    total.z += factor * values.z;
    total.w += factor * values.w;
    sum += factor * weight;
  }
  __device__ void Scale(float factor) {
    total.x *= factor;
    total.y *= factor;
    total.z *= factor;
    total.w *= factor;
    sum *= factor;
  }
  __device__ void Write(uint16_t* output) const {
    const float inverse = 1.0f / sum;
    *reinterpret_cast<uint2*>(output) =
        make_uint2(PackBf16(total.x * inverse, total.y * inverse), PackBf16(total.z * inverse, total.w * inverse));
  }
};

// Of a head whose tiles lie in several shares: where each one's result is.
struct Pieces {
  int32_t first;  // share
  int32_t count;
  int32_t first_slot;  // of the first share's result, and of the ticket

  __device__ Pieces(const Run& run, int32_t size) {
    first = run.First() / size;
    count = (run.First() + run.unit.tiles - 1) / size - first + 1;
    first_slot = 2 * first + (run.First() == first * size ? 0 : 1);
  }
  // A share may begin with one piece and end with another.
  __device__ int32_t Slot(int32_t share) const { return share == first ? first_slot : 2 * share; }
};

// Of the blocks of threads that have written pieces of the same head, the last puts them together, in their order.
__device__ void MergePieces(const HopperDecodeInput& input, const Run& run, int32_t group, const Pieces& pieces,
                            bool* is_last) {
  SyncSome<kComputing>();
  if (threadIdx.x == 0) {
    uint32_t* ticket = input.tickets + pieces.first_slot;
    *is_last = AddForAll(ticket) + 1 == static_cast<uint32_t>(pieces.count);
    if (*is_last) *ticket = 0;
  }
  SyncSome<kComputing>();
  if (!*is_last) return;
  constexpr int kColumns = kHead / 4;
  for (int i = threadIdx.x; i < run.unit.segment.row_count * group * kColumns; i += kComputing) {
    const int query = i / kColumns;
    const int column = i % kColumns * 4;
    const float* rows = input.partials + query * kRowFloats;
    // The first piece has a position that any query attends to.
    float maximum = kMinusInfinity;
    Merged merged;
#pragma unroll 4
    for (int32_t p = 0; p < pieces.count; ++p) {
      const float* row = rows + pieces.Slot(pieces.first + p) * (kHopperDecodeQueries * kRowFloats);
      const float2 known = __ldcg(reinterpret_cast<const float2*>(row + kHead));
      const float4 values = __ldcg(reinterpret_cast<const float4*>(row + column));
      const float highest = fmaxf(maximum, known.x);
      merged.Scale(FastExp2(maximum - highest));
      merged.Add(FastExp2(known.x - highest), values, known.y);
      maximum = highest;
    }
    merged.Write(input.output + QueryAt(input, run, group, query).offset + column);
  }
}

// Puts together what the warps have of a run.
__device__ void FinishRun(const HopperDecodeInput& input, const Run& run, int32_t group, int32_t share, int32_t size,
                          WarpState& state, float* merge, bool* is_last) {
  const int lane = threadIdx.x % kWarpSize;
  const int32_t count = run.unit.segment.row_count * group;
  const bool whole = run.BeginTile() == 0 && run.EndTile() == run.unit.tiles;
  const Pieces pieces(run, size);
  state.FinishSums();
  for (int pass = 0; pass * kMerged < count; ++pass) {
    SyncSome<kComputing>();
    state.Show(pass, merge);
    SyncSome<kComputing>();
    const int query = pass * kMerged + threadIdx.x / kWarpSize;
    if (query >= count) continue;
    const float* rows = merge + query % kMerged * kRowFloats;
    float maximum = kMinusInfinity;
    for (int w = 0; w < kWarps; ++w) maximum = fmaxf(maximum, rows[w * kMerged * kRowFloats + kHead]);
    // Of several tokens' queries, one may have no position in this run.
    const float base = maximum == kMinusInfinity ? 0.0f : maximum;
    Merged merged;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float* row = rows + w * kMerged * kRowFloats;
      merged.Add(FastExp2(row[kHead] - base), *reinterpret_cast<const float4*>(row + lane * 4), row[kHead + 1]);
    }
    if (whole) {
      merged.Write(input.output + QueryAt(input, run, group, query).offset + lane * 4);
      continue;
    }
    float* to = input.partials + (pieces.Slot(share) * kHopperDecodeQueries + query) * kRowFloats;
    *reinterpret_cast<float4*>(to + lane * 4) = merged.total;
    if (lane == 0) *reinterpret_cast<float2*>(to + kHead) = make_float2(maximum, merged.sum);
  }
  if (!whole) MergePieces(input, run, group, pieces, is_last);
}

// Zeros in the values of this warp's positions from `length` on: what was never written may be NaN, which no weight of
// 0 makes good.
__device__ void ClearValues(uint8_t* stage, const Rows& rows, int32_t first, int32_t length) {
  const int warp = threadIdx.x / kWarpSize;
  for (int i = threadIdx.x % kWarpSize; i < kEach * 16; i += kWarpSize) {
    const int row = i / 16;
    if (first + row < length) continue;
    *reinterpret_cast<Bf16x8*>(stage + LaneRows::Offset(rows, warp * kEach + row) + rows.tokens * 256 +
                               i / 8 % 2 * (rows.tokens * 128) + i % 8 * 16) = Bf16x8();
  }
  __syncwarp();
}

__device__ void NewRow::Store(const DecodeRope& rope, const Rows& rows, const Run& run, int32_t block,
                              uint8_t* stage) const {
  const int lane = threadIdx.x % kWarpSize;
  const int32_t slot = run.unit.segment.first_position % rows.tokens;
  const int64_t head = int64_t{rows.tokens} * kHead;
  uint16_t* to = rope.kv.data + block * rope.kv.block_stride + run.head * head + slot * kHead + lane * 4;
  *reinterpret_cast<uint2*>(to) = key;
  *reinterpret_cast<uint2*>(to + rows.kv_heads * head) = value;
  const int32_t row = run.unit.segment.first_position % kTile;
  uint8_t* near = stage + LaneRows::Offset(rows, row) + lane / 16 * (rows.tokens * 128) +
                  ((lane / 2 % 8 ^ row % 8) << 4) + lane % 2 * 8;
  *reinterpret_cast<uint2*>(near) = key;
  *reinterpret_cast<uint2*>(near + rows.tokens * 256) = value;
  __syncwarp();
}

// Of shared memory, besides barriers.
struct Memory {
  uint8_t* stages;
  float* merge;
  float2* turns;
  bool* is_last;
};

__device__ void Compute(const HopperDecodeInput& input, const Rows& rows, float scale, const Places& places,
                        const Memory& memory) {
  const int lane = threadIdx.x % kWarpSize;
  const int warp = threadIdx.x / kWarpSize;
  const int32_t group = input.head_count / rows.kv_heads;
  const LaneRows lane_rows(rows, warp, lane);
  const DecodeRope& rope = input.rope;
  WarpState state;
  NewRow stored;
  bool awaited = false;
  int n = 0;
  for (int32_t s = blockIdx.x;; s += gridDim.x) {
    const DecodeShare share = input.shares[s];
    for (Run run(share); share.count > 0 && run.Valid(); run.Next(input.units, rows.kv_heads)) {
      const Query upper = QueryAt(input, run, group, lane / 4);
      const Query lower = QueryAt(input, run, group, lane / 4 + 8);
      const int32_t last[2] = {upper.position, lower.position};
      const int32_t length = run.Length();
      // The warp whose position is the last one, if the last tile is in this run.
      const bool stores =
          rope.frequencies != nullptr && run.EndTile() == run.unit.tiles && (length - 1) % kTile / kEach == warp;
      const int32_t block = stores ? input.blocks[run.unit.segment.first_block + (length - 1) / rows.tokens] : 0;
      if (rope.frequencies != nullptr) FindTurns(rope.frequencies, length - 1, memory.turns);
      if (!awaited) AwaitPrevious();
      awaited = true;
      state.Begin(input.q, upper, lower);
      if (rope.frequencies != nullptr) state.Rotate(memory.turns);
      if (stores) stored.Load(rope, run, memory.turns);
      for (int32_t tile = run.BeginTile(); tile < run.EndTile(); ++tile, ++n) {
        const int32_t first = tile * kTile + warp * kEach;
        uint8_t* stage = memory.stages + Stage(n) * kStageBytes;
        AwaitBarrier(places.Full(Stage(n)), Turn(n));
        if (first < length) {
          const bool clear = first + kEach > length;
          const bool store = stores && tile + 1 == run.unit.tiles;
          if (clear) ClearValues(stage, rows, first, length);
          if (store) stored.Store(rope, rows, run, block, stage);
          state.Attend(stage, lane_rows, first, last, scale);
          if (clear || store) ShowToProducts();
        }
        __syncwarp();
        if (lane == 0) Arrive(places.Free(Stage(n)));
      }
      FinishRun(input, run, group, s, share.size, state, memory.merge, memory.is_last);
    }
    if (s + static_cast<int32_t>(gridDim.x) >= share.count) break;
  }
  if (!awaited) AwaitPrevious();  // so that whoever waits for this kernel waits for those in front of it
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

__global__ void __launch_bounds__(kThreads, kHopperDecodeBlocks)
    HopperDecodeKernel(const __grid_constant__ CUtensorMap map, const __grid_constant__ HopperDecodeInput input,
                       const Rows rows, float scale) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t memory[];
  uint8_t* shared = memory + (1024 - SharedAddress(memory) % 1024) % 1024;
  uint8_t* merge = shared + kStages * kStageBytes;
  uint8_t* turns = merge + kMergeBytes;
  uint8_t* barriers = turns + kTurnBytes;
  const Places places = {SharedAddress(shared), SharedAddress(barriers)};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      InitBarrier(places.Full(stage), 1);
      InitBarrier(places.Free(stage), kWarps);
    }
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  }
  __syncthreads();
  // All blocks of threads are on the device at once: those of the next kernel take nobody's room.
  LetNextBegin();
  if (threadIdx.x < kComputing) {
    Compute(input, rows, scale, places,
            {shared, reinterpret_cast<float*>(merge), reinterpret_cast<float2*>(turns),
             reinterpret_cast<bool*>(barriers + 2 * kStages * 8)});
  } else {
    BringTiles(input, rows, &map, places);
  }
#endif
}

}  // namespace

DecodeMap MapKvForDecode(void* pool, const KvShape& shape) {
  DecodeMap map;
  map.shape = shape;
  const int64_t rows = int64_t{2} * shape.block_count * shape.layer_count * shape.kv_head_count * shape.block_tokens;
  if (shape.head_size != kHead || shape.block_tokens % 8 != 0 || kTile % shape.block_tokens != 0 || rows == 0 ||
      rows > 0x7fffffff) {
    return map;
  }
  // 64 columns, rows, the other 64 columns, values after keys.
  const uint64_t values = static_cast<uint64_t>(shape.kv_head_count) * static_cast<uint64_t>(shape.block_tokens);
  map.tensor = MapTensor(pool, {4,
                                {kHead / 2, static_cast<uint64_t>(rows) - values, 2, 2},
                                {kHead * 2, kHead, values * kHead * 2},
                                {kHead / 2, static_cast<uint32_t>(shape.block_tokens), 2, 2}});
  return map;
}

int64_t HopperDecodePartialFloats(int32_t shares) { return int64_t{2} * shares * kHopperDecodeQueries * kRowFloats; }

int HopperDecode(const HopperDecodeInput& input, const DecodeMap& map, int32_t layer, int32_t blocks_of_threads,
                 CUstream_st* stream) {
  static const cudaError_t allowed =
      cudaFuncSetAttribute(HopperDecodeKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  const KvShape& shape = map.shape;
  const int32_t layer_rows = 2 * shape.kv_head_count * shape.block_tokens;
  const Rows rows = {shape.layer_count * layer_rows, layer * layer_rows, shape.block_tokens, shape.kv_head_count};
  const float scale = kLog2E / sqrtf(static_cast<float>(kHead));
  return LaunchEarly(HopperDecodeKernel, dim3(blocks_of_threads), kThreads, kSharedBytes, stream,
                     map.tensor.As<CUtensorMap>(), input, rows, scale);
}

}  // namespace fermata::kernels::cuda
