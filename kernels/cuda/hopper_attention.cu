#include <cuda.h>
#include <cuda_runtime.h>

#include "kernels/cuda/bf16_ops.cuh"
#include "kernels/cuda/hopper_attention.h"
#include "kernels/cuda/warpgroup_ops.cuh"

namespace fermata::kernels::cuda {
namespace {

constexpr int kHead = 128;
constexpr int kHalf = 64;   // columns of a tile
constexpr int kTile = 128;  // positions
constexpr int kGroups = 2;  // warpgroups that compute, of 64 queries each
constexpr int kComputing = kGroups * 128;
constexpr int kBringers = 4;  // warps that bring tiles
constexpr int kThreads = kComputing + kBringers * kWarpSize;
constexpr int kComputeRegisters = 232;
constexpr int kBringRegisters = 40;
static_assert(kGroups * kComputeRegisters + kBringRegisters == (kGroups + 1) * (65536 / kThreads / 8 * 8),
              "all that a block of threads begins with");
constexpr int kStages = 2;
constexpr uint32_t kHalfBytes = kTile * kHalf * 2;
constexpr uint32_t kTileBytes = 2 * kHalfBytes;
constexpr uint32_t kQueryBytes = kPrefillQueries * kHead * 2;
constexpr uint32_t kBarriers = 4 * kStages;
constexpr uint32_t kNoteBytes = kComputing * 8;
constexpr uint32_t kSharedBytes = 1024 + kQueryBytes + 2 * kStages * kTileBytes + kBarriers * 8 + kNoteBytes;
constexpr float kLog2E = 1.4426950408889634f;

// How the pool's rows count.
struct Rows {
  int32_t block;   // rows of a block
  int32_t first;   // of this layer's first head's keys
  int32_t head;    // rows of a head
  int32_t values;  // from keys to values
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr float kMinusInfinity = -__builtin_huge_valf();

// Addresses in shared memory.
struct Places {
  uint32_t queries;
  uint32_t keys;    // kStages tiles
  uint32_t values;  // likewise
  uint32_t barriers;

  __device__ uint32_t Key(int stage) const { return keys + stage * kTileBytes; }
  __device__ uint32_t Value(int stage) const { return values + stage * kTileBytes; }
  __device__ uint32_t KeyFull(int stage) const { return barriers + stage * 8; }
  __device__ uint32_t KeyFree(int stage) const { return barriers + (kStages + stage) * 8; }
  __device__ uint32_t ValueFull(int stage) const { return barriers + (2 * kStages + stage) * 8; }
  __device__ uint32_t ValueFree(int stage) const { return barriers + (3 * kStages + stage) * 8; }
  __device__ uint32_t Note() const { return barriers + kBarriers * 8 + threadIdx.x * 8; }
};

// Of tile n: which time its stage is used.
__device__ uint32_t Turn(int n) { return static_cast<uint32_t>(n / kStages) & 1; }

// A warpgroup: warp w brings every fourth box of each tile from box w on, each by a lane of its own. One warp alone
// would be slower in asking than others are in computing.
__device__ void BringTiles(const AttentionInput& input, const AttentionItem& item, const Rows& rows, const void* map,
                           const Places& places) {
  const int box = threadIdx.x % kWarpSize * kBringers + threadIdx.x / kWarpSize % kBringers;
  const int32_t half = box % 2;
  const int32_t block_tokens = input.kv.block_tokens;
  const int32_t tile_blocks = kTile / block_tokens;
  const int32_t block_count = (item.end + block_tokens - 1) / block_tokens;
  const int32_t* blocks = input.blocks + item.segment.first_block;
  const uint32_t box_bytes = block_tokens * kHalf * 2;
  const int32_t first = rows.first + static_cast<int32_t>(blockIdx.y) * rows.head;
  const int tiles = (item.end + kTile - 1) / kTile;
  // Where a block lies is read a tile ahead.
  const auto block_at = [&](int n) {
    const int32_t index = n * tile_blocks + box / 2;
    return box / 2 < tile_blocks && index < block_count ? blocks[index] : kNoBlock;
  };
  int32_t next = block_at(0);
  for (int n = 0; n < tiles; ++n) {
    const int stage = n % kStages;
    const int32_t block = next;
    if (n + 1 < tiles) next = block_at(n + 1);
    const uint32_t tile_bytes = 2 * min(block_count - n * tile_blocks, tile_blocks) * box_bytes;
    for (const bool value : {false, true}) {
      const uint32_t full = value ? places.ValueFull(stage) : places.KeyFull(stage);
      if (n >= kStages) AwaitBarrier(value ? places.ValueFree(stage) : places.KeyFree(stage), Turn(n) ^ 1);
      if (threadIdx.x == kComputing) ArriveExpecting(full, tile_bytes);
      __syncwarp();
      if (block == kNoBlock) continue;
      const uint32_t tile = value ? places.Value(stage) : places.Key(stage);
      const int32_t row = block * rows.block + first + (value ? rows.values : 0);
      BringBox(tile + half * kHalfBytes + box / 2 * box_bytes, map, half * kHalf, row, full);
    }
  }
}

// Queries beyond the last are copies of it, and not kept.
struct Query {
  int64_t q_offset;
  int64_t offset;
  int32_t position;
};

__device__ Query QueryAt(const AttentionInput& input, const AttentionItem& item, int32_t index) {
  const int32_t group = input.head_count / input.kv.kv_head_count;
  const int32_t i = min(index, item.query_count * group - 1);
  const int32_t token = item.first_query + i / group;
  const int64_t row = item.segment.first_row + token;
  const int32_t head = static_cast<int32_t>(blockIdx.y) * group + i % group;
  return {row * input.q_stride + head * kHead, (row * input.head_count + head) * kHead,
          item.segment.first_position + token};
}

__device__ void LoadQueries(const AttentionInput& input, const AttentionItem& item, uint8_t* queries) {
  for (int i = threadIdx.x; i < kPrefillQueries * kHead / 8; i += kComputing) {
    const int row = i / (kHead / 8);
    const int piece = i % (kHead / 8);
    const Bf16x8 value = *reinterpret_cast<const Bf16x8*>(input.q + QueryAt(input, item, row).q_offset + piece * 8);
    const int place = (piece % 8) ^ (row % 8);
    *reinterpret_cast<Bf16x8*>(queries + piece / 8 * (kPrefillQueries * kHalf * 2) + row * 128 + place * 16) = value;
  }
  ShowToProducts();
}

// Rows of a tile of values from `count` on: what was never written may be NaN, which no weight of 0 makes good.
__device__ void ClearRows(uint8_t* tile, int32_t count) {
  for (int i = threadIdx.x; i < 2 * (kTile - count) * 8; i += kComputing) {
    const int half = i % 2;
    const int row = count + i / 16;
    *reinterpret_cast<Bf16x8*>(tile + half * kHalfBytes + row * 128 + i / 2 % 8 * 16) = Bf16x8();
  }
  ShowToProducts();
  SyncSome<kComputing>();
}

// Has the weights, which the sums are of, computed before what comes next: else the compiler moves them behind it.
__device__ void Show(const float (&sum)[2], uint32_t note) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};\n" ::"r"(note), "f"(sum[0]), "f"(sum[1]) : "memory");
}

// A warpgroup's 64 queries: what a thread knows of rows lane / 4 and 8 further of its warp's 16.
struct GroupState {
  float output[kHead / 2] = {};
  float scores[kTile / 2];
  uint32_t weights[kTile / 4];
  float maximum[2] = {kMinusInfinity, kMinusInfinity};  // of scores times the scale
  float sum[2] = {};

  __device__ void Score(uint32_t queries, uint32_t keys) {
#pragma unroll
    for (int k = 0; k < kHead / 16; ++k) {
      const uint32_t half = k / 4;
      const uint32_t column = k % 4 * 32;
      MultiplyShared(DescribeTile(queries + half * (kPrefillQueries * kHalf * 2) + column, 16),
                     DescribeTile(keys + half * kHalfBytes + column, 16), k > 0, scores);
    }
    CommitProducts();
  }

  __device__ void AddValues(uint32_t values) {
#pragma unroll
    for (int k = 0; k < kTile / 16; ++k) {
      MultiplyRegisters(weights + 4 * k, DescribeTile(values + k * 16 * 128, kHalfBytes), output);
    }
    CommitProducts();
  }

  // Makes weights of the scores, in place; returns by what the output so far is to be multiplied.
  __device__ void Weigh(int32_t first, const int32_t (&last)[2], float scale, float (&factor)[2]) {
    if (first + kTile - 1 > min(last[0], last[1])) {
#pragma unroll
      for (int i = 0; i < kTile / 2; ++i) {
        const int32_t position = first + i / 4 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2;
        if (position > last[i / 2 % 2]) scores[i] = kMinusInfinity;
      }
    }
    float highest[2] = {kMinusInfinity, kMinusInfinity};
#pragma unroll
    for (int i = 0; i < kTile / 2; ++i) highest[i / 2 % 2] = fmaxf(highest[i / 2 % 2], scores[i]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(kAllLanes, highest[r], 1));
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(kAllLanes, highest[r], 2));
      // Position 0 is attended to by all, so this is above minus infinity from the first tile on.
      highest[r] = fmaxf(maximum[r], highest[r] * scale);
      factor[r] = FastExp2(maximum[r] - highest[r]);
      maximum[r] = highest[r];
      sum[r] *= factor[r];
    }
#pragma unroll
    for (int i = 0; i < kTile / 2; ++i) {
      scores[i] = FastExp2(fmaf(scores[i], scale, -highest[i / 2 % 2]));
      sum[i / 2 % 2] += scores[i];
    }
  }

  __device__ void Rescale(const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < kHead / 2; ++i) output[i] *= factor[i / 2 % 2];
  }

  __device__ void PackWeights() {
#pragma unroll
    for (int i = 0; i < kTile / 4; ++i) weights[i] = PackBf16(scores[2 * i], scores[2 * i + 1]);
  }
};

__device__ void Compute(const AttentionInput& input, const AttentionItem& item, float scale, const Places& places,
                        uint8_t* shared) {
  const int lane = threadIdx.x % kWarpSize;
  const int32_t first_row = threadIdx.x / 128 * 64 + threadIdx.x / kWarpSize % 4 * 16 + lane / 4;
  const int32_t last[2] = {QueryAt(input, item, first_row).position, QueryAt(input, item, first_row + 8).position};
  const uint32_t queries = places.queries + threadIdx.x / 128 * (64 * 128);
  const int tiles = (item.end + kTile - 1) / kTile;
  const int group = threadIdx.x / 128;
  if (group == kGroups - 1) GiveTurn<kComputing>(0);
  GroupState state;
  float factor[2];
  AwaitBarrier(places.KeyFull(0), 0);
  BeginProducts();
  state.Score(queries, places.Key(0));
  AwaitProducts<0>();
  Pin(state.scores);
  if (lane == 0) Arrive(places.KeyFree(0));
  state.Weigh(0, last, scale, factor);
  state.PackWeights();
  // The scores of a tile are computed together with what the one before adds to the output.
  for (int n = 1; n < tiles; ++n) {
    const int stage = n % kStages;
    const int before = (n - 1) % kStages;
    AwaitBarrier(places.KeyFull(stage), Turn(n));
    AwaitBarrier(places.ValueFull(before), Turn(n - 1));
    // One group's products while the other weighs its scores.
    TakeTurn<kComputing>(group);
    BeginProducts();
    state.Score(queries, places.Key(stage));
    state.AddValues(places.Value(before));
    GiveTurn<kComputing>(kGroups - 1 - group);
    AwaitProducts<1>();
    Pin(state.scores);
    if (lane == 0) Arrive(places.KeyFree(stage));
    state.Weigh(n * kTile, last, scale, factor);
    Show(state.sum, places.Note());
    AwaitProducts<0>();
    Pin(state.output);
    if (lane == 0) Arrive(places.ValueFree(before));
    // Of most tiles, none has a higher score than those before.
    if (__any_sync(kAllLanes, factor[0] != 1.0f || factor[1] != 1.0f)) state.Rescale(factor);
    state.PackWeights();
  }
  const int stage = (tiles - 1) % kStages;
  AwaitBarrier(places.ValueFull(stage), Turn(tiles - 1));
  const int32_t count = item.end - (tiles - 1) * kTile;
  if (count < kTile) ClearRows(shared + (places.Value(stage) - places.queries), count);
  BeginProducts();
  state.AddValues(places.Value(stage));
  AwaitProducts<0>();
  Pin(state.output);
  const int32_t query_count = item.query_count * (input.head_count / input.kv.kv_head_count);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    state.sum[r] += __shfl_xor_sync(kAllLanes, state.sum[r], 1);
    state.sum[r] += __shfl_xor_sync(kAllLanes, state.sum[r], 2);
    if (first_row + 8 * r >= query_count) continue;
    uint16_t* to = input.output + QueryAt(input, item, first_row + 8 * r).offset + lane % 4 * 2;
    const float inverse = 1.0f / state.sum[r];
#pragma unroll
    for (int d = 0; d < kHead / 8; ++d) {
      *reinterpret_cast<uint32_t*>(to + d * 8) =
          PackBf16(state.output[4 * d + 2 * r] * inverse, state.output[4 * d + 2 * r + 1] * inverse);
    }
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// A block takes one item and one KV head.
__global__ void __launch_bounds__(kThreads, 1)
    HopperKernel(const __grid_constant__ CUtensorMap map, const __grid_constant__ AttentionInput input, const Rows rows,
                 float scale) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t memory[];
  uint8_t* shared = memory + (1024 - SharedAddress(memory) % 1024) % 1024;
  Places places;
  places.queries = SharedAddress(shared);
  places.keys = places.queries + kQueryBytes;
  places.values = places.keys + kStages * kTileBytes;
  places.barriers = places.values + kStages * kTileBytes;
  if (threadIdx.x == 0) {
    FetchMap(&map);
    for (int stage = 0; stage < kStages; ++stage) {
      InitBarrier(places.KeyFull(stage), 1);
      InitBarrier(places.ValueFull(stage), 1);
      InitBarrier(places.KeyFree(stage), kComputing / kWarpSize);
      InitBarrier(places.ValueFree(stage), kComputing / kWarpSize);
    }
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  }
  __syncthreads();
  AwaitPrevious();
  const AttentionItem item = input.items[blockIdx.x];
  // Those that compute take the registers that the others do not need: no more than these give, or all wait for ever.
  if (threadIdx.x < kComputing) {
    TakeRegisters<kComputeRegisters>();
    LoadQueries(input, item, shared);
    SyncSome<kComputing>();
    Compute(input, item, scale, places, shared);
  } else {
    GiveRegisters<kBringRegisters>();
    BringTiles(input, item, rows, &map, places);
  }
#endif
}

}  // namespace

KvMap MapKv(void* pool, const KvShape& shape) {
  KvMap map;
  map.shape = shape;
  const int64_t rows = int64_t{2} * shape.block_count * shape.layer_count * shape.kv_head_count * shape.block_tokens;
  if (shape.head_size != kHead || shape.block_tokens % 8 != 0 || kTile % shape.block_tokens != 0 || rows == 0 ||
      rows > 0x7fffffff) {
    return map;
  }
  map.tensor = MapTensor(
      pool, {2, {kHead, static_cast<uint64_t>(rows)}, {kHead * 2}, {kHalf, static_cast<uint32_t>(shape.block_tokens)}});
  return map;
}

int HopperAttention(const AttentionInput& input, const KvMap& map, int32_t layer, CUstream_st* stream) {
  if (input.item_count == 0) return cudaSuccess;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(HopperKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  const int32_t head = map.shape.block_tokens;
  const int32_t values = map.shape.kv_head_count * head;
  const Rows rows = {map.shape.layer_count * 2 * values, layer * 2 * values, head, values};
  const dim3 grid(input.item_count, input.kv.kv_head_count);
  const float scale = kLog2E / sqrtf(static_cast<float>(kHead));
  return LaunchEarly(HopperKernel, grid, kThreads, kSharedBytes, stream, map.tensor.As<CUtensorMap>(), input, rows,
                     scale);
}

}  // namespace fermata::kernels::cuda
