#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/bf16_ops.cuh"
#include "kernels/cuda/device_query.h"
#include "kernels/cuda/fused_layer.h"
#include "kernels/cuda/layer_plan.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/warpgroup_ops.cuh"

namespace fermata::kernels::cuda {
namespace {

constexpr int kPhases = 4;  // products: attention's output, gate and up, down, the next layer's inputs
constexpr int kStep = kLayerStep;
constexpr int kGroups = 2;  // warpgroups that multiply
constexpr int kComputing = kGroups * 128;
constexpr int kThreads = kComputing + 128;  // and a warpgroup that brings what they multiply
constexpr uint32_t kSlotBytes = kLayerBoxOutputs * kStep * 2;
constexpr int32_t kSpan = kComputing * 8;  // columns of a row that are combined at a time
constexpr int32_t kMaxSpans = 4;
constexpr int kWarps = kComputing / kWarpSize;

constexpr int kFirstTile = 8;  // ticket, after the counters

// Of shared memory: slots for boxes of weights, and stages for as many columns of all rows.
template <int kRows>
struct Form {
  static constexpr uint32_t kRowBytes = kRows * kStep * 2;
  static constexpr int kStages = kRows <= 16 ? 16 : kRows <= 32 ? 12 : kRows <= 64 ? 8 : 5;
  static constexpr int kSlots = static_cast<int>(((224 << 10) - kStages * kRowBytes) / kSlotBytes);
  static constexpr uint32_t kBarriersAt = kSlots * kSlotBytes + kStages * kRowBytes;
  static constexpr uint32_t kScalesAt = kBarriersAt + (2 * (kSlots + kStages) + 1) * 8;
  static constexpr uint32_t kFlagAt = kScalesAt + 2 * kRows * sizeof(float);
  static constexpr uint32_t kSharedBytes = 1024 + kFlagAt + 16;
  static_assert(kSharedBytes <= 227 << 10, "more than a processor has");
};

// A product, and where it goes.
struct Phase : LayerShares {
  int32_t size;  // outputs; gated, of gates
  bool gated;
  bool scaled;       // rows are multiplied by the norm's scale in the end
  uint16_t* output;  // null: the sums stay in pieces
  int64_t stride;
};

struct Plan {
  Phase phases[kPhases];
  int32_t phase_count;
  int32_t rows;
  int32_t embedding;
  float epsilon;
  const float* norms[2];
  uint16_t* hidden;
  uint16_t* normed;
  float* partials;  // [piece][row][output] of the phase that is on
  float* squares;   // [row][span][warp]: their sums, of the rows that are to be normed
  uint32_t* tickets;
};

struct Maps {
  CUtensorMap weights[kPhases];
  CUtensorMap rows[kPhases];
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kScaling = 2 * kWarpSize;  // threads that find scales, besides one that brings weights and one for rows
constexpr int kRun = 2;  // steps whose boxes of the same rows are asked for one after the other: they lie together
constexpr int kComputingRegisters = 232;
constexpr int kBringingRegisters = 40;

// Places of counters among the tickets.
constexpr int kMultiplied = 0;      // blocks of threads that are done with a phase: one counter for each
constexpr int kCombined = kPhases;  // that are done with combining: one for each norm
constexpr int kDone = kCombined + 2;
static_assert(kDone < kFirstTile, "tickets of tiles follow");
// Threads of a block that look at counters: one that brings rows, one of each warp that finds scales, one that
// computes.
constexpr int kLooking = 2 + kScaling / kWarpSize;

__device__ inline int32_t TileOutputs(const Phase& phase) {
  return phase.boxes * phase.box_rows / (phase.gated ? 2 : 1);
}

// A place in a ring, and which time round it is.
template <int kSize>
struct Cursor {
  int place = 0;
  uint32_t turn = 0;

  __device__ void Advance(int count) {
    place += count;
    if (place >= kSize) {
      place -= kSize;
      turn ^= 1;
    }
  }
  __device__ Cursor Ahead(int count) const {
    Cursor other = *this;
    other.Advance(count);
    return other;
  }
};

// One piece of one tile.
struct Unit {
  int32_t tile;
  int32_t piece;
  int32_t begin;  // steps
  int32_t count;

  __device__ Unit(const Phase& phase, int32_t index)
      : tile(index / phase.pieces),
        piece(index % phase.pieces),
        begin(phase.steps * piece / phase.pieces),
        count(phase.steps * (piece + 1) / phase.pieces - begin) {}
};

__device__ inline uint32_t LoadAcquire(const uint32_t* place) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];\n" : "=r"(value) : "l"(place) : "memory");
  return value;
}
__device__ inline void AddRelease(uint32_t* place) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;\n" ::"l"(place) : "memory");
}
__device__ inline void AwaitCount(const uint32_t* counter, uint32_t count) {
  while (LoadAcquire(counter) < count) {
  }
}
// What was written to memory before is seen by bulk copies after this, and the other way round.
__device__ inline void FenceCopies() { asm volatile("fence.proxy.async.global;\n" ::: "memory"); }

// An 8 x 8 tile of a warp, turned: a lane has row lane / 4, columns 2 * (lane % 4) and the next, before and after.
__device__ inline uint32_t Transpose(uint32_t pair) {
  uint32_t turned;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(turned) : "r"(pair));
  return turned;
}

__device__ inline void AddTo(const float4& low, const float4& high, float (&sum)[8]) {
  sum[0] += low.x;
  sum[1] += low.y;
  sum[2] += low.z;
  sum[3] += low.w;
  sum[4] += high.x;
  sum[5] += high.y;
  sum[6] += high.z;
  sum[7] += high.w;
}

// Eight neighbouring sums of each piece, in the pieces' order.
template <int kPieces>
__device__ void AddPieces(const float* from, int64_t next, float (&sum)[8]) {
  float4 parts[kPieces][2];
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    parts[p][0] = __ldcg(reinterpret_cast<const float4*>(from + p * next));
    parts[p][1] = __ldcg(reinterpret_cast<const float4*>(from + p * next) + 1);
  }
#pragma unroll
  for (int p = 0; p < kPieces; ++p) AddTo(parts[p][0], parts[p][1], sum);
}

template <int kRows>
class Block {
 public:
  using Shape = Form<kRows>;

  __device__ Block(const Plan& plan, const Maps& maps, uint8_t* shared)
      : plan_(plan),
        maps_(maps),
        slots_(SharedAddress(shared)),
        stages_(slots_ + Shape::kSlots * kSlotBytes),
        barriers_(slots_ + Shape::kBarriersAt),
        scales_at_(slots_ + Shape::kScalesAt),
        scales_(reinterpret_cast<float*>(shared + Shape::kScalesAt)),
        flag_(reinterpret_cast<bool*>(shared + Shape::kFlagAt)) {}

  __device__ void InitBarriers() const {
    for (int slot = 0; slot < Shape::kSlots; ++slot) {
      InitBarrier(SlotFull(slot), 1);
      InitBarrier(SlotFree(slot), kWarps / kGroups);
    }
    for (int stage = 0; stage < Shape::kStages; ++stage) {
      InitBarrier(StageFull(stage), 1);
      InitBarrier(StageFree(stage), kWarps);
    }
    InitBarrier(ScalesKnown(), kScaling);
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  }

  // One thread. Weights are nobody's result: it waits for nothing but room.
  __device__ void BringWeights() const {
    const uint64_t policy = ReadOncePolicy();
    Cursor<Shape::kSlots> slot;
    for (int f = 0; f < plan_.phase_count; ++f) {
      const Phase& phase = plan_.phases[f];
      const void* map = &maps_.weights[f];
      FetchMap(map);
      const uint32_t bytes = static_cast<uint32_t>(phase.box_rows) * kStep * 2;
      for (int32_t index = blockIdx.x; index < phase.tiles * phase.pieces; index += gridDim.x) {
        const Unit unit(phase, index);
        const int32_t first = unit.tile * TileOutputs(phase);
        for (int32_t n = 0; n < unit.count; n += kRun) {
          const int32_t run = min(kRun, unit.count - n);
          for (int32_t box = 0; box < phase.boxes; ++box) {
            const int32_t row = phase.gated ? (box % 2 == 0 ? 0 : phase.size) + first + box / 2 * phase.box_rows
                                            : first + box * phase.box_rows;
            for (int32_t k = n; k < n + run; ++k) {
              AwaitBarrier(SlotFree(slot.place), slot.turn ^ 1);
              ArriveExpecting(SlotFull(slot.place), bytes);
              BringBoxOnce(Slot(slot.place), map, (unit.begin + k) * kStep, row, SlotFull(slot.place), policy);
              slot.Advance(1);
            }
          }
        }
      }
    }
    AwaitPrevious();  // so that whoever waits for this kernel waits for those in front of it
  }

  // One thread: what the weights are multiplied with, as soon as all of it is there.
  __device__ void BringRows() const {
    Cursor<Shape::kStages> stage;
    AwaitPrevious();
    for (int f = 0; f < plan_.phase_count; ++f) {
      const Phase& phase = plan_.phases[f];
      // Who has nothing to do does not wait: counters are zeros again when all are done.
      if (!HasUnits(phase)) continue;
      const void* map = &maps_.rows[f];
      FetchMap(map);
      if (f == 2) AwaitCount(plan_.tickets + kMultiplied + 1, gridDim.x);
      if (phase.scaled) AwaitCount(plan_.tickets + kCombined + f / 2, CombiningBlocks());
      FenceCopies();
      for (int32_t index = blockIdx.x; index < phase.tiles * phase.pieces; index += gridDim.x) {
        const Unit unit(phase, index);
        for (int32_t n = 0; n < unit.count; ++n) {
          AwaitBarrier(StageFree(stage.place), stage.turn ^ 1);
          ArriveExpecting(StageFull(stage.place), Shape::kRowBytes);
          BringBox(Stage(stage.place), map, (unit.begin + n) * kStep, 0, StageFull(stage.place));
          stage.Advance(1);
        }
      }
    }
    LeaveCounters();
  }

  // kScaling threads: by what a row's products are multiplied, since it is only known once its sums are.
  __device__ void FindScales() const {
    AwaitPrevious();
    const int32_t count = Spans() * kWarps;
    float* scales = scales_;
    for (int f = 0; f < plan_.phase_count; ++f) {
      const Phase& phase = plan_.phases[f];
      if (!phase.scaled || !HasUnits(phase)) continue;
      if (Lane() == 0) AwaitCount(plan_.tickets + kCombined + f / 2, CombiningBlocks());
      __syncwarp();
      for (int32_t row = threadIdx.x % kScaling; row < plan_.rows; row += kScaling) {
        const float4* squares = reinterpret_cast<const float4*>(plan_.squares + row * count);
        float total = 0.0f;
        for (int32_t i = 0; i < count / 4; ++i) {
          const float4 four = __ldcg(squares + i);
          total += four.x + four.y + four.z + four.w;
        }
        scales[row] = 1.0f / sqrtf(total / static_cast<float>(plan_.embedding) + plan_.epsilon);
      }
      Arrive(ScalesKnown());
      scales += kRows;
    }
    if (Lane() == 0) LeaveCounters();
  }

  // The warpgroups.
  __device__ void Compute() {
    AwaitPrevious();
    for (int f = 0; f < plan_.phase_count; ++f) {
      const Phase& phase = plan_.phases[f];
      const int32_t each = phase.gated || phase.boxes > kGroups ? 2 : 1;
      const int32_t first_box = Group() * each;
      const int32_t mine = max(0, min(each, phase.boxes - first_box));
      for (int32_t index = blockIdx.x; index < phase.tiles * phase.pieces; index += gridDim.x) {
        const Unit unit(phase, index);
        switch (mine) {
          case 2:
            Multiply<2>(phase, unit, first_box);
            break;
          case 1:
            Multiply<1>(phase, unit, first_box);
            break;
          default:
            LetPass(phase, unit);
        }
        if (phase.output != nullptr && phase.pieces > 1) PutTogether(phase, unit);
      }
      if (phase.scaled && HasUnits(phase)) scales_turn_ ^= 1;
      if (f == kPhases - 1) break;  // nobody in this kernel waits for it
      Tell(kMultiplied + f);
      if (!phase.scaled) Combine(phase, f / 2);
      if (f == 2 && threadIdx.x == 0) LeaveCounters();
    }
  }

 private:
  __device__ uint32_t Slot(int n) const { return slots_ + n * kSlotBytes; }
  __device__ uint32_t Stage(int n) const { return stages_ + n * Shape::kRowBytes; }
  __device__ uint32_t SlotFull(int n) const { return barriers_ + n * 8; }
  __device__ uint32_t SlotFree(int n) const { return barriers_ + (Shape::kSlots + n) * 8; }
  __device__ uint32_t StageFull(int n) const { return barriers_ + (2 * Shape::kSlots + n) * 8; }
  __device__ uint32_t StageFree(int n) const { return barriers_ + (2 * Shape::kSlots + Shape::kStages + n) * 8; }
  __device__ uint32_t ScalesKnown() const { return barriers_ + 2 * (Shape::kSlots + Shape::kStages) * 8; }
  __device__ static int Group() { return threadIdx.x / 128; }
  __device__ static int Lane() { return threadIdx.x % kWarpSize; }
  __device__ int32_t Spans() const { return (plan_.embedding + kSpan - 1) / kSpan; }
  __device__ uint32_t CombiningBlocks() const { return min(static_cast<uint32_t>(plan_.rows * Spans()), gridDim.x); }
  __device__ static bool HasUnits(const Phase& phase) {
    return static_cast<int32_t>(blockIdx.x) < phase.tiles * phase.pieces;
  }

  // Counts this block of threads, once all that it wrote is there to be seen.
  __device__ void Tell(int counter) const {
    FenceCopies();
    SyncSome<kComputing>();
    if (threadIdx.x == 0) AddRelease(plan_.tickets + counter);
  }

  // By a thread that looks at no counter from here on; the last one leaves zeros behind. Nobody counts any more then:
  // each counter but kDone is waited for, in full, by one that has left.
  __device__ void LeaveCounters() const {
    if (atomicAdd(plan_.tickets + kDone, 1u) + 1 != kLooking * gridDim.x) return;
    for (int i = 0; i < kFirstTile; ++i) plan_.tickets[i] = 0;
  }

  // A warpgroup that has no box of this tile.
  __device__ void LetPass(const Phase& phase, const Unit& unit) {
    for (int32_t n = 0; n < unit.count; ++n) {
      AwaitBarrier(StageFull(stage_.place), stage_.turn);
      __syncwarp();
      if (Lane() == 0) Arrive(StageFree(stage_.place));
      stage_.Advance(1);
      slot_.Advance(phase.boxes);
    }
  }

  template <int kMine>
  __device__ void Multiply(const Phase& phase, const Unit& unit, int32_t first_box) {
    float sums[kMine][kRows / 2];
    // Else the registers would be kept from one unit to the next.
#pragma unroll
    for (int b = 0; b < kMine; ++b) {
#pragma unroll
      for (float& sum : sums[b]) sum = 0.0f;
    }
    int last_slots[kMine];
    int last_stage = 0;
    for (int32_t n = 0; n < unit.count; ++n) {
      int places[kMine];
      const int32_t run = min(kRun, unit.count - n / kRun * kRun);
      AwaitBarrier(StageFull(stage_.place), stage_.turn);
#pragma unroll
      for (int b = 0; b < kMine; ++b) {
        const Cursor<Shape::kSlots> slot = slot_.Ahead((first_box + b) * run + n % kRun);
        places[b] = slot.place;
        AwaitBarrier(SlotFull(slot.place), slot.turn);
      }
      BeginProducts();
#pragma unroll
      for (int k = 0; k < kStep / 16; ++k) {
        const uint64_t rows = DescribeTile(Stage(stage_.place) + k * 32, 16);
#pragma unroll
        for (int b = 0; b < kMine; ++b) {
          MultiplyShared(DescribeTile(Slot(places[b]) + k * 32, 16), rows, /*accumulate=*/1, sums[b]);
        }
      }
      CommitProducts();
      // The step before is done with its boxes then.
      AwaitProducts<1>();
      if (n > 0) Free(last_slots, last_stage);
#pragma unroll
      for (int b = 0; b < kMine; ++b) last_slots[b] = places[b];
      last_stage = stage_.place;
      stage_.Advance(1);
      if (n % kRun == run - 1) slot_.Advance(run * phase.boxes);
    }
    AwaitProducts<0>();
#pragma unroll
    for (int b = 0; b < kMine; ++b) Pin(sums[b]);
    Free(last_slots, last_stage);
    if (phase.scaled) AwaitBarrier(ScalesKnown(), scales_turn_);
    Write(phase, unit, first_box, sums);
  }

  template <int kMine>
  __device__ void Free(const int (&places)[kMine], int stage) const {
    if (Lane() != 0) return;
#pragma unroll
    for (int b = 0; b < kMine; ++b) Arrive(SlotFree(places[b]));
    Arrive(StageFree(stage));
  }

  template <int kMine>
  __device__ void Write(const Phase& phase, const Unit& unit, int32_t first_box,
                        const float (&sums)[kMine][kRows / 2]) const {
    const int32_t tile = unit.tile * TileOutputs(phase);
    if (kMine == 2 && phase.gated) {
      WriteRounded(phase, tile + first_box / 2 * phase.box_rows,
                   [&](int i, float scale) { return GateRounded(sums[0][i] * scale, sums[kMine - 1][i] * scale); });
    } else if (phase.output == nullptr || phase.pieces > 1) {
      WritePieces(phase, unit, tile + first_box * phase.box_rows, sums);
    } else {
#pragma unroll
      for (int b = 0; b < kMine; ++b) {
        WriteRounded(phase, tile + (first_box + b) * phase.box_rows,
                     [&](int i, float scale) { return sums[b][i] * scale; });
      }
    }
  }

  // The output, within a box, that a warp's 8 rows begin with: those of the upper half of its tile, or the lower.
  __device__ static int32_t EightAt(int half) { return threadIdx.x / kWarpSize % 4 * 16 + half * 8; }
  __device__ static bool HasEight(const Phase& phase, int32_t first, int half) {
    return EightAt(half) < phase.box_rows && first + EightAt(half) < phase.size;
  }

  // Of a row and the next.
  __device__ float2 ScalesOf(int row) const {
    float2 scales;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];\n"
                 : "=f"(scales.x), "=f"(scales.y)
                 : "r"(scales_at_ + (scales_turn_ * kRows + row) * 4)
                 : "memory");
    return scales;
  }

  // The outputs of a box from `first` on: value(i, its row's scale) for sum i.
  template <typename Value>
  __device__ void WriteRounded(const Phase& phase, int32_t first, const Value& value) const {
    const bool has[2] = {HasEight(phase, first, 0), HasEight(phase, first, 1)};
    uint16_t* to = phase.output + Lane() / 4 * phase.stride + first + EightAt(0) + Lane() % 4 * 2;
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j, to += 8 * phase.stride) {
      const float2 scale = ScalesOf(j * 8 + Lane() % 4 * 2);
      uint32_t pairs[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = j * 4 + half * 2;
        pairs[half] = Transpose(PackBf16(value(i, scale.x), value(i + 1, scale.y)));
      }
      if (j * 8 + Lane() / 4 >= plan_.rows) continue;
      if (has[0]) *reinterpret_cast<uint32_t*>(to) = pairs[0];
      if (has[1]) *reinterpret_cast<uint32_t*>(to + 8) = pairs[1];
    }
  }

  // The sums of all boxes from output `first` on, as they are.
  template <int kMine>
  __device__ void WritePieces(const Phase& phase, const Unit& unit, int32_t first,
                              const float (&sums)[kMine][kRows / 2]) const {
    const int32_t row = Lane() % 4 * 2;
    float* to = plan_.partials + (static_cast<int64_t>(unit.piece) * plan_.rows + row) * phase.size + first +
                EightAt(0) + Lane() / 4;
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j, to += 8 * phase.size) {
#pragma unroll
      for (int next = 0; next < 2; ++next) {
        if (j * 8 + row + next >= plan_.rows) continue;
#pragma unroll
        for (int b = 0; b < kMine; ++b) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            if (!HasEight(phase, first + b * phase.box_rows, half)) continue;
            to[next * phase.size + b * phase.box_rows + half * 8] = sums[b][j * 4 + half * 2 + next];
          }
        }
      }
    }
  }

  __device__ void SumPieces(const Phase& phase, int32_t row, int32_t output, float (&sum)[8]) const {
    const float* from = plan_.partials + static_cast<int64_t>(row) * phase.size + output;
    const int64_t next = static_cast<int64_t>(plan_.rows) * phase.size;
    switch (phase.pieces) {
      case 2:
        return AddPieces<2>(from, next, sum);
      case 4:
        return AddPieces<4>(from, next, sum);
      case 8:
        return AddPieces<8>(from, next, sum);
      default:
        return AddPieces<1>(from, next, sum);
    }
  }

  // Of the blocks of threads that have a tile's pieces, the last one puts them together.
  __device__ void PutTogether(const Phase& phase, const Unit& unit) const {
    SyncSome<kComputing>();
    if (threadIdx.x == 0) {
      uint32_t* ticket = plan_.tickets + kFirstTile + unit.tile;
      *flag_ = AddForAll(ticket) + 1 == static_cast<uint32_t>(phase.pieces);
      if (*flag_) *ticket = 0;
    }
    SyncSome<kComputing>();
    if (!*flag_) return;
    const int32_t each = TileOutputs(phase) / 8;
    for (int32_t i = threadIdx.x; i < plan_.rows * each; i += kComputing) {
      const int32_t row = i / each;
      const int32_t output = unit.tile * TileOutputs(phase) + i % each * 8;
      if (output >= phase.size) continue;
      float sum[8] = {};
      SumPieces(phase, row, output, sum);
      const float scale = scales_[scales_turn_ * kRows + row];
#pragma unroll
      for (float& value : sum) value *= scale;
      *reinterpret_cast<Bf16x8*>(phase.output + row * phase.stride + output) = {
          {PackBf16(sum[0], sum[1]), PackBf16(sum[2], sum[3]), PackBf16(sum[4], sum[5]), PackBf16(sum[6], sum[7])}};
    }
  }

  // Eight columns of a row that a thread combines, and the norm's weights for them.
  struct Eight {
    int4 hidden = {};
    float4 low = {};
    float4 high = {};
  };
  __device__ Eight LoadEight(int32_t row, int32_t i, const float* weights) const {
    Eight eight;
    if (i >= plan_.embedding / 8) return eight;
    eight.hidden =
        __ldcg(reinterpret_cast<const int4*>(plan_.hidden) + static_cast<int64_t>(row) * plan_.embedding / 8 + i);
    if (weights != nullptr) {
      eight.low = reinterpret_cast<const float4*>(weights)[i * 2];
      eight.high = reinterpret_cast<const float4*>(weights)[i * 2 + 1];
    }
    return eight;
  }

  // After a phase whose sums are added to the hidden rows: that, and what the norm needs; its scale comes later.
  __device__ void Combine(const Phase& phase, int which) const {
    const int32_t spans = Spans();
    if (blockIdx.x >= CombiningBlocks()) return;
    const float* weights = plan_.norms[which];
    // Nobody else writes these columns of this row.
    int32_t unit = blockIdx.x;
    Eight eight = LoadEight(unit / spans, unit % spans * kComputing + threadIdx.x, weights);
    if (threadIdx.x == 0) AwaitCount(plan_.tickets + kMultiplied + 2 * which, gridDim.x);
    SyncSome<kComputing>();
    while (true) {
      CombineEight(phase, unit / spans, unit % spans, eight, weights != nullptr);
      unit += gridDim.x;
      if (unit >= plan_.rows * spans) break;
      eight = LoadEight(unit / spans, unit % spans * kComputing + threadIdx.x, weights);
    }
    if (weights != nullptr) Tell(kCombined + which);
  }

  __device__ void CombineEight(const Phase& phase, int32_t row, int32_t span, const Eight& eight, bool norm) const {
    const int32_t i = span * kComputing + threadIdx.x;
    const int32_t pieces = plan_.embedding / 8;
    float squares = 0.0f;
    if (i < pieces) {
      const int64_t place = static_cast<int64_t>(row) * pieces + i;
      float sum[8] = {};
      SumPieces(phase, row, i * 8, sum);
      const int words[4] = {eight.hidden.x, eight.hidden.y, eight.hidden.z, eight.hidden.w};
      Bf16x8 hidden;
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const uint32_t word = static_cast<uint32_t>(words[w]);
        hidden.words[w] = PackBf16(LowFloat(word) + sum[2 * w], HighFloat(word) + sum[2 * w + 1]);
        sum[2 * w] = LowFloat(hidden.words[w]);
        sum[2 * w + 1] = HighFloat(hidden.words[w]);
        squares += sum[2 * w] * sum[2 * w] + sum[2 * w + 1] * sum[2 * w + 1];
      }
      reinterpret_cast<Bf16x8*>(plan_.hidden)[place] = hidden;
      if (norm) {
        reinterpret_cast<Bf16x8*>(plan_.normed)[place] = {{PackBf16(sum[0] * eight.low.x, sum[1] * eight.low.y),
                                                           PackBf16(sum[2] * eight.low.z, sum[3] * eight.low.w),
                                                           PackBf16(sum[4] * eight.high.x, sum[5] * eight.high.y),
                                                           PackBf16(sum[6] * eight.high.z, sum[7] * eight.high.w)}};
      }
    }
    squares = SumOverWarp(squares);
    if (Lane() == 0) plan_.squares[(row * Spans() + span) * kWarps + threadIdx.x / kWarpSize] = squares;
  }

  const Plan& plan_;
  const Maps& maps_;
  const uint32_t slots_;  // addresses in shared memory
  const uint32_t stages_;
  const uint32_t barriers_;
  const uint32_t scales_at_;
  float* const scales_;
  bool* const flag_;
  Cursor<Shape::kSlots> slot_;  // of the computing threads
  Cursor<Shape::kStages> stage_;
  uint32_t scales_turn_ = 0;
};

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int kRows>
__global__ void __launch_bounds__(kThreads, 1)
    FusedLayerKernel(const __grid_constant__ Maps maps, const __grid_constant__ Plan plan) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t memory[];
  uint8_t* shared = memory + (1024 - SharedAddress(memory) % 1024) % 1024;
  Block<kRows> block(plan, maps, shared);
  if (threadIdx.x == 0) block.InitBarriers();
  __syncthreads();
  // All blocks of threads of this kernel are on the device when the next one's may begin, and leave them no room until
  // they are done.
  LetNextBegin();
  if (threadIdx.x < kComputing) {
    TakeRegisters<kComputingRegisters>();
    block.Compute();
  } else {
    GiveRegisters<kBringingRegisters>();
    if (threadIdx.x == kComputing) block.BringWeights();
    if (threadIdx.x == kComputing + kWarpSize) block.BringRows();
    if (threadIdx.x >= kThreads - kScaling) block.FindScales();
  }
#endif
}

constexpr int64_t kSquares = int64_t{kFusedLayerRows} * kMaxSpans * kWarps;

// What each product multiplies, and where it goes.
struct Operands {
  FusedMatrix matrix;
  const uint16_t* x;
  int64_t x_stride;
  uint16_t* output;
  int64_t output_stride;
};

template <int kRows>
int Launch(const FusedLayer& layer, cudaStream_t stream) {
  using Shape = Form<kRows>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(FusedLayerKernel<kRows>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  static const int32_t processors = Processors();
  const int32_t embedding = layer.down.size;
  const Operands all[kPhases] = {
      {layer.attention_output, layer.attention, layer.attention_stride, nullptr, 0},
      {layer.gate_up, layer.normed, embedding, layer.gated, layer.gated_stride},
      {layer.down, layer.gated, layer.gated_stride, nullptr, 0},
      {layer.next_inputs, layer.normed, embedding, layer.inputs, layer.inputs_stride},
  };
  Plan plan = {};
  Maps maps = {};
  plan.phase_count = layer.next_inputs.weights != nullptr ? kPhases : kPhases - 1;
  plan.rows = layer.rows;
  plan.embedding = embedding;
  plan.epsilon = layer.epsilon;
  plan.norms[0] = layer.feed_forward_norm;
  plan.norms[1] = layer.next_norm;
  plan.hidden = layer.hidden;
  plan.normed = layer.normed;
  plan.squares = layer.partials;
  plan.partials = layer.partials + kSquares;
  plan.tickets = layer.tickets;
  for (int f = 0; f < plan.phase_count; ++f) {
    const Operands& operands = all[f];
    const bool gated = f == 1;
    const FusedMatrix& matrix = operands.matrix;
    const LayerProduct product = {gated ? matrix.size / 2 : matrix.size, matrix.columns, gated,
                                  operands.output == nullptr};
    Phase& phase = plan.phases[f];
    static_cast<LayerShares&>(phase) = ShareOut(product, kRows, processors, kFusedLayerTickets - kFirstTile);
    phase.size = product.size;
    phase.gated = gated;
    phase.scaled = f % 2 == 1;
    phase.output = operands.output;
    phase.stride = operands.output_stride;
    const TensorMap weights = MapMatrix(matrix.weights, matrix.columns, matrix.size, matrix.columns, phase.box_rows);
    const TensorMap rows = MapMatrix(operands.x, matrix.columns, layer.rows, operands.x_stride, kRows);
    if (!weights.usable || !rows.usable) return cudaErrorInvalidValue;
    maps.weights[f] = weights.As<CUtensorMap>();
    maps.rows[f] = rows.As<CUtensorMap>();
  }
  return LaunchEarly(FusedLayerKernel<kRows>, dim3(static_cast<unsigned>(processors)), kThreads, Shape::kSharedBytes,
                     stream, maps, plan);
}

bool IsServed(const FusedMatrix& matrix) { return matrix.size > 0 && matrix.size % 8 == 0 && matrix.columns % 8 == 0; }

}  // namespace

int64_t FusedLayerPartialFloats(const FusedLayer& layer) {
  const int64_t size = std::max(layer.down.size, layer.next_inputs.size);
  return kSquares + kLayerPieces * size * kFusedLayerRows;
}

bool ServesFusedLayer(const FusedLayer& layer) {
  static const bool is_hopper = IsHopper();
  if (!is_hopper || layer.rows < 1 || layer.rows > kFusedLayerRows) return false;
  const int32_t embedding = layer.down.size;
  const bool last = layer.next_inputs.weights == nullptr;
  return IsServed(layer.attention_output) && IsServed(layer.gate_up) && IsServed(layer.down) &&
         (last || IsServed(layer.next_inputs)) && embedding <= kSpan * kMaxSpans &&
         last == (layer.next_norm == nullptr) && layer.attention_output.size == embedding &&
         layer.gate_up.columns == embedding && layer.gate_up.size == 2 * layer.down.columns &&
         (last || layer.next_inputs.columns == embedding) && layer.attention_stride % 8 == 0 &&
         layer.gated_stride % 8 == 0 && layer.inputs_stride % 8 == 0;
}

int LaunchFusedLayer(const FusedLayer& layer, CUstream_st* stream) {
  if (layer.rows <= 16) return Launch<16>(layer, stream);
  if (layer.rows <= 32) return Launch<32>(layer, stream);
  if (layer.rows <= 64) return Launch<64>(layer, stream);
  return Launch<kFusedLayerRows>(layer, stream);
}

}  // namespace fermata::kernels::cuda
