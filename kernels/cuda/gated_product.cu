#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/bf16_ops.cuh"
#include "kernels/cuda/device_query.h"
#include "kernels/cuda/divide_up.h"
#include "kernels/cuda/gated_product.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/warpgroup_ops.cuh"

namespace fermata::kernels::cuda {
namespace {

constexpr int kStep = 64;   // columns of a stage
constexpr int kGroups = 2;  // warpgroups that multiply, each 64 rows of a tile
constexpr int kTileRows = kGroups * 64;
constexpr int kComputing = kGroups * 128;
constexpr int kThreads = kComputing + 128;  // and a warpgroup that brings stages
constexpr int kStages = 4;
constexpr int kBandRows = 2048;  // whose x stays in the L2 while all weights pass
constexpr uint32_t kRowBytes = kTileRows * kStep * 2;
constexpr uint32_t kFinishedPitch = 256;  // bytes of a row of outputs on their way out
constexpr uint32_t kFinishedBytes = kTileRows * kFinishedPitch;

// What a block of threads has at a time: kTileRows rows of kOutputs outputs and their gates.
template <int kOutputs>
struct Form {
  static constexpr uint32_t kBoxBytes = kOutputs * kStep * 2;
  static constexpr uint32_t kStageBytes = kRowBytes + 2 * kBoxBytes;
  static constexpr uint32_t kFinishedAt = kStages * kStageBytes;
  static constexpr uint32_t kBarriersAt = kFinishedAt + kFinishedBytes;
  static constexpr uint32_t kSharedBytes = 1024 + kBarriersAt + 2 * kStages * 8;
  static_assert(kBoxBytes % 1024 == 0, "a product reads gates and what follows them as one operand");
  static_assert(kOutputs * 2 <= kFinishedPitch && kSharedBytes <= 227 << 10, "room");
};

struct Task {
  uint16_t* output;
  int64_t stride;
  int32_t size;
  int32_t rows;
  int32_t steps;       // of all columns
  int32_t row_groups;  // what the blocks of threads of a cluster have: kTileRows rows for each
  int32_t band;        // row groups that are done before the next ones
  int32_t tiles;       // all row groups times all tiles of outputs
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kComputingRegisters = 240;
constexpr int kBringingRegisters = 24;
static_assert(kGroups * kComputingRegisters + kBringingRegisters == (kGroups + 1) * (65536 / kThreads / 8 * 8),
              "as many as a kernel of kThreads begins with");

// A block of threads' own part: every so many tiles, whose steps pass through the stages one after the other.
template <int kOutputs, int kCluster>
class Part {
 public:
  using Shape = Form<kOutputs>;

  __device__ Part(const Task& task, uint8_t* shared)
      : task_(task), stages_(SharedAddress(shared)), finished_(shared + Shape::kFinishedAt) {}

  __device__ void InitBarriers() const {
    for (int stage = 0; stage < kStages; ++stage) {
      InitBarrier(Full(stage), 1);
      InitBarrier(Free(stage), kCluster * kComputing / kWarpSize);
    }
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  }

  // One thread. Weights are nobody's result: the first are asked for before the kernel in front is done.
  __device__ void Bring(const void* weights, const void* x) const {
    FetchMap(weights);
    FetchMap(x);
    const int early = min(task_.steps, kStages);
    const Tile first(task_, FirstTile());
    for (int n = 0; n < early; ++n) BringWeights(weights, first, n, n);
    AwaitPrevious();
    for (int n = 0; n < early; ++n) BringBox(Stage(n), x, n * kStep, first.row, Full(n));
    int n = 0;
    for (int32_t t = FirstTile(); t < task_.tiles; t += Clusters()) {
      const Tile tile(task_, t);
      for (int step = 0; step < task_.steps; ++step, ++n) {
        if (n < early) continue;
        if (n >= kStages) AwaitBarrier(Free(n), Turn(n) ^ 1);
        BringWeights(weights, tile, step, n);
        BringBox(Stage(n), x, step * kStep, tile.row, Full(n));
      }
    }
  }

  // The warpgroups.
  __device__ void Compute() const {
    AwaitPrevious();  // outputs may be what a kernel in front still reads
    const int group = threadIdx.x / 128;
    float sums[kOutputs];  // gates, then the others
    int n = 0;
    for (int32_t t = FirstTile(); t < task_.tiles; t += Clusters()) {
      for (int step = 0; step < task_.steps; ++step, ++n) {
        AwaitBarrier(Full(n), Turn(n));
        BeginProducts();
#pragma unroll
        for (int k = 0; k < kStep / 16; ++k) {
          const uint64_t rows = DescribeTile(Stage(n) + group * (kRowBytes / kGroups) + k * 32, 16);
          MultiplyShared(rows, DescribeTile(Weights(n) + k * 32, 16), step > 0 || k > 0, sums);
        }
        CommitProducts();
        // The step before is done with its stage then.
        AwaitProducts<1>();
        if (step > 0) Release(n - 1);
      }
      AwaitProducts<0>();
      Pin(sums);
      Release(n - 1);
      Finish(Tile(task_, t), sums);
    }
  }

 private:
  struct Tile {
    int32_t row;
    int32_t output;

    __device__ Tile(const Task& task, int32_t index) {
      const int32_t of_band = task.band * (task.tiles / task.row_groups);
      const int32_t first = index / of_band * task.band;
      const int32_t groups = min(task.band, task.row_groups - first);
      index %= of_band;
      row = ((first + index % groups) * kCluster + Rank()) * kTileRows;
      output = index / groups * kOutputs;
    }
  };

  __device__ static int Rank() { return kCluster == 1 ? 0 : blockIdx.x % kCluster; }
  __device__ static int32_t FirstTile() { return blockIdx.x / kCluster; }
  __device__ static int32_t Clusters() { return gridDim.x / kCluster; }

  __device__ uint32_t Stage(int n) const { return stages_ + n % kStages * Shape::kStageBytes; }
  __device__ uint32_t Weights(int n) const { return Stage(n) + kRowBytes; }
  __device__ uint32_t Full(int n) const { return stages_ + Shape::kBarriersAt + n % kStages * 8; }
  __device__ uint32_t Free(int n) const { return Full(n) + kStages * 8; }
  // Which time the stage of step n is used.
  __device__ static uint32_t Turn(int n) { return static_cast<uint32_t>(n / kStages) & 1; }

  // Of two blocks of threads one brings the gates to both, the other what passes through them.
  __device__ void BringWeights(const void* map, const Tile& tile, int step, int n) const {
    ArriveExpecting(Full(n), Shape::kStageBytes);
#pragma unroll
    for (int up = 0; up < 2; ++up) {
      const uint32_t to = Weights(n) + up * Shape::kBoxBytes;
      const int32_t row = up * task_.size + tile.output;
      if (kCluster == 1) {
        BringBox(to, map, step * kStep, row, Full(n));
      } else if (Rank() == up) {
        BringBoxToAll(to, map, step * kStep, row, Full(n), (1 << kCluster) - 1);
      }
    }
  }

  // Others bring to this block of threads' stages, too.
  __device__ void Release(int n) const {
    const int lane = threadIdx.x % kWarpSize;
    if (kCluster == 1) {
      if (lane == 0) Arrive(Free(n));
    } else if (lane < kCluster) {
      ArriveAt(Free(n), lane);
    }
  }

  // Each warp has 16 rows, and writes them by way of shared memory, so that neighbours leave together.
  __device__ void Finish(const Tile& tile, const float (&sums)[kOutputs]) const {
    const int warp = threadIdx.x / kWarpSize;
    const int lane = threadIdx.x % kWarpSize;
    uint8_t* rows = finished_ + warp * 16 * kFinishedPitch;
    __syncwarp();  // the tile before has left
#pragma unroll
    for (int i = 0; i < kOutputs / 2; i += 2) {
      const int row = lane / 4 + i / 2 % 2 * 8;
      *reinterpret_cast<uint32_t*>(rows + Place(row, i / 4) + lane % 4 * 4) =
          PackBf16(GateRounded(sums[i], sums[kOutputs / 2 + i]), GateRounded(sums[i + 1], sums[kOutputs / 2 + i + 1]));
    }
    __syncwarp();
    constexpr int kEights = kOutputs / 8;
#pragma unroll
    for (int i = 0; i < 16 * kEights / kWarpSize; ++i) {
      const int at = i * kWarpSize + lane;
      const int32_t row = tile.row + warp * 16 + at / kEights;
      const int32_t output = tile.output + at % kEights * 8;
      if (row >= task_.rows || output >= task_.size) continue;
      *reinterpret_cast<Bf16x8*>(task_.output + row * task_.stride + output) =
          *reinterpret_cast<const Bf16x8*>(rows + Place(at / kEights, at % kEights));
    }
  }

  // Where eight outputs of a row lie: no two lanes write to one bank.
  __device__ static uint32_t Place(int row, int eight) { return row * kFinishedPitch + (eight ^ row % 8) * 16; }

  const Task& task_;
  const uint32_t stages_;
  uint8_t* const finished_;
};

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int kOutputs, int kCluster>
__global__ void __launch_bounds__(kThreads, 1)
    GatedKernel(const __grid_constant__ CUtensorMap weights, const __grid_constant__ CUtensorMap x,
                const __grid_constant__ Task task) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t memory[];
  const Part<kOutputs, kCluster> part(task, memory + (1024 - SharedAddress(memory) % 1024) % 1024);
  if (threadIdx.x == 0) part.InitBarriers();
  __syncthreads();
  if (kCluster > 1) SyncCluster();  // others tell barriers here
  if (threadIdx.x >= kComputing) {
    GiveRegisters<kBringingRegisters>();
    if (threadIdx.x == kComputing) part.Bring(&weights, &x);
    __syncwarp();
  } else {
    TakeRegisters<kComputingRegisters>();
    part.Compute();
  }
  LetNextBegin();
  if (kCluster > 1) SyncCluster();  // nobody goes whom others still tell something
#endif
}

template <int kOutputs, int kCluster>
int Launch(const WarpgroupOperands& operands, cudaStream_t stream) {
  using Shape = Form<kOutputs>;
  static const int32_t processors = Processors();
  static const cudaError_t allowed = cudaFuncSetAttribute(
      GatedKernel<kOutputs, kCluster>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  const TensorMap weights =
      MapMatrix(operands.weights, operands.columns, int64_t{2} * operands.size, operands.columns, kOutputs);
  const TensorMap x = MapMatrix(operands.x, operands.columns, operands.rows, operands.x_stride, kTileRows);
  if (!weights.usable || !x.usable) return cudaErrorInvalidValue;
  Task task;
  task.output = static_cast<uint16_t*>(operands.output);
  task.stride = operands.output_stride;
  task.size = operands.size;
  task.rows = operands.rows;
  task.steps = DivideUp(operands.columns, kStep);
  task.row_groups = DivideUp(operands.rows, kCluster * kTileRows);
  task.band = std::min(task.row_groups, kBandRows / (kCluster * kTileRows));
  task.tiles = task.row_groups * DivideUp(operands.size, kOutputs);
  const int32_t clusters = std::min(processors / kCluster, task.tiles);
  return LaunchEarlyInClusters(GatedKernel<kOutputs, kCluster>, dim3(static_cast<unsigned>(clusters * kCluster)),
                               kThreads, Shape::kSharedBytes, kCluster, stream, weights.As<CUtensorMap>(),
                               x.As<CUtensorMap>(), task);
}

}  // namespace

std::vector<GatedPlan> GatedPlans(const WarpgroupOperands& operands) {
  if (!AreServed(operands) || !operands.gated || operands.float_output || operands.rows <= kWarpgroupProductRows) {
    return {};
  }
  return {{112, 1}, {112, 2}, {128, 1}, {128, 2}};
}

int GatedProduct(const WarpgroupOperands& operands, const GatedPlan& plan, CUstream_st* stream) {
  if (plan.outputs == 112) {
    return plan.cluster == 1 ? Launch<112, 1>(operands, stream) : Launch<112, 2>(operands, stream);
  }
  return plan.cluster == 1 ? Launch<128, 1>(operands, stream) : Launch<128, 2>(operands, stream);
}

}  // namespace fermata::kernels::cuda
