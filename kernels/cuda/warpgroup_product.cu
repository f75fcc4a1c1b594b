#include <cuda.h>
#include <cuda_runtime.h>

#include "kernels/cuda/bf16_ops.cuh"
#include "kernels/cuda/device_query.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/warpgroup_ops.cuh"
#include "kernels/cuda/warpgroup_product.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int kBoxOutputs = 64;  // that a warpgroup multiplies at a time
constexpr int kStep = 64;        // columns of a box
constexpr int kGroups = 2;       // warpgroups that multiply
constexpr int kComputing = kGroups * 128;
constexpr int kThreads = kComputing + kWarpSize;  // and one warp that brings boxes
constexpr int kMaxPieces = 8;                     // a cluster of more is not portable
constexpr int kLeastSteps = 4;                    // of a piece
constexpr uint32_t kBoxBytes = kBoxOutputs * kStep * 2;

// What a block of threads has: kBoxes boxes of weights at a time, times up to kRows rows.
template <int kRows, int kBoxes>
struct Form {
  static constexpr int kBlocks = kBoxes == kGroups ? 2 : 1;  // on one processor
  static constexpr int kOutputs = kBoxes * kBoxOutputs;
  static constexpr uint32_t kStageBytes = kBoxes * kBoxBytes + kRows * kStep * 2;
  static constexpr int kStages = (216 << 10) / kBlocks / kStageBytes;
  static constexpr int kPitch = kOutputs + 4;  // floats of a row of sums: no two lanes write to one bank
  static constexpr uint32_t kSharedBytes = 1024 + kStages * kStageBytes + 2 * kStages * 8;
  static_assert(kRows * kPitch * 4 <= kStages * kStageBytes, "sums take the place of the boxes");
};

struct Task {
  void* output;
  int64_t stride;
  int32_t size;
  int32_t rows;
  int32_t steps;  // of all columns
  int32_t pieces;
  bool floats;
  bool gated;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// A block of threads' own part.
template <int kRows, int kBoxes>
struct Part {
  using Shape = Form<kRows, kBoxes>;

  uint32_t stages;  // addresses in shared memory
  uint32_t barriers;
  int32_t tile;
  int32_t piece;
  int32_t begin;  // steps
  int32_t count;

  __device__ Part(const Task& task, uint32_t shared)
      : stages(shared),
        barriers(shared + Shape::kStages * Shape::kStageBytes),
        tile(static_cast<int32_t>(blockIdx.x) / task.pieces),
        piece(static_cast<int32_t>(blockIdx.x) % task.pieces),
        begin(task.steps * piece / task.pieces),
        count(task.steps * (piece + 1) / task.pieces - begin) {}

  __device__ uint32_t Stage(int n) const { return stages + n % Shape::kStages * Shape::kStageBytes; }
  __device__ uint32_t Rows(int n) const { return Stage(n) + kBoxes * kBoxBytes; }
  __device__ uint32_t Full(int n) const { return barriers + n % Shape::kStages * 8; }
  __device__ uint32_t Free(int n) const { return barriers + (Shape::kStages + n % Shape::kStages) * 8; }
  // Which time the stage of step n is used.
  __device__ uint32_t Turn(int n) const { return static_cast<uint32_t>(n / Shape::kStages) & 1; }

  // Outputs of the first box; gated, half of the boxes are gates, and the others what passes through them.
  __device__ int32_t FirstOutput(bool gated) const { return tile * (gated ? Shape::kOutputs / 2 : Shape::kOutputs); }

  __device__ void BringWeights(const Task& task, const void* map, int n, uint64_t policy) const {
    ArriveExpecting(Full(n), Shape::kStageBytes);
    const int32_t first = FirstOutput(task.gated);
#pragma unroll
    for (int box = 0; box < kBoxes; ++box) {
      const bool up = task.gated && box >= kBoxes / 2;
      const int32_t row = up ? task.size + first + (box - kBoxes / 2) * kBoxOutputs : first + box * kBoxOutputs;
      const uint32_t to = Stage(n) + box * kBoxBytes;
      // Beside many outputs, weights that are the first to go are gone before their time.
      if (task.floats) {
        BringBox(to, map, (begin + n) * kStep, row, Full(n));
      } else {
        BringBoxOnce(to, map, (begin + n) * kStep, row, Full(n), policy);
      }
    }
  }

  // One thread. Weights are nobody's result: the first are asked for before the kernel in front is done.
  __device__ void Bring(const Task& task, const void* weights, const void* x) const {
    FetchMap(weights);
    FetchMap(x);
    const uint64_t policy = ReadOncePolicy();
    const int early = min(count, Shape::kStages);
    for (int n = 0; n < early; ++n) BringWeights(task, weights, n, policy);
    AwaitPrevious();
    for (int n = 0; n < early; ++n) BringBox(Rows(n), x, (begin + n) * kStep, 0, Full(n));
    for (int n = early; n < count; ++n) {
      AwaitBarrier(Free(n), Turn(n) ^ 1);
      BringWeights(task, weights, n, policy);
      BringBox(Rows(n), x, (begin + n) * kStep, 0, Full(n));
    }
  }

  // The warpgroups; each has every kGroups-th box. Leaves the sums, [rows][outputs], where the boxes were.
  __device__ void Compute(float* partial) const {
    const int group = threadIdx.x / 128;
    const int warp = threadIdx.x / kWarpSize % 4;
    const int lane = threadIdx.x % kWarpSize;
    float sums[kBoxes / kGroups][kRows / 2];
    for (int n = 0; n < count; ++n) {
      AwaitBarrier(Full(n), Turn(n));
      BeginProducts();
#pragma unroll
      for (int k = 0; k < kStep / 16; ++k) {
        const uint64_t rows = DescribeTile(Rows(n) + k * 32, 16);
#pragma unroll
        for (int b = 0; b < kBoxes / kGroups; ++b) {
          const uint32_t box = Stage(n) + (b * kGroups + group) * kBoxBytes;
          MultiplyShared(DescribeTile(box + k * 32, 16), rows, n > 0 || k > 0, sums[b]);
        }
      }
      CommitProducts();
      // The step before is done with its boxes then.
      AwaitProducts<1>();
      if (n > 0 && lane == 0) Arrive(Free(n - 1));
    }
    AwaitProducts<0>();
#pragma unroll
    for (int b = 0; b < kBoxes / kGroups; ++b) Pin(sums[b]);
    SyncSome<kComputing>();
#pragma unroll
    for (int b = 0; b < kBoxes / kGroups; ++b) {
      const int output = (b * kGroups + group) * kBoxOutputs + warp * 16 + lane / 4;
#pragma unroll
      for (int i = 0; i < kRows / 2; ++i) {
        const int row = i / 4 * 8 + lane % 4 * 2 + i % 2;
        partial[row * Shape::kPitch + output + i / 2 % 2 * 8] = sums[b][i];
      }
    }
  }

  // Eight neighbouring sums of all pieces.
  template <int kPieces>
  __device__ void Gather(int row, int column, float (&sum)[8]) const {
    const uint32_t place = stages + (row * Shape::kPitch + column) * 4;
    float4 parts[kPieces][2];
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const uint32_t other = kPieces == 1 ? place : SharedOf(place, p);
      parts[p][0] = LoadShared(other);
      parts[p][1] = LoadShared(other + 16);
    }
    for (float& value : sum) value = 0.0f;
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        sum[4 * h] += parts[p][h].x;
        sum[4 * h + 1] += parts[p][h].y;
        sum[4 * h + 2] += parts[p][h].z;
        sum[4 * h + 3] += parts[p][h].w;
      }
    }
  }

  // Puts the pieces together; each block of threads of a cluster has every kPieces-th row.
  template <int kPieces>
  __device__ void Finish(const Task& task) const {
    const int each = task.gated ? Shape::kOutputs / 2 : Shape::kOutputs;
    for (int i = threadIdx.x;; i += kThreads) {
      const int32_t row = piece + i / (each / 8) * kPieces;
      if (row >= task.rows) break;
      const int column = i % (each / 8) * 8;
      const int32_t output = tile * each + column;
      if (output >= task.size) continue;
      float sum[8];
      Gather<kPieces>(row, column, sum);
      if (task.gated) {
        float up[8];
        Gather<kPieces>(row, column + each, up);
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          const float gate = __bfloat162float(__float2bfloat16_rn(sum[k]));
          sum[k] = gate / (1.0f + __expf(-gate)) * __bfloat162float(__float2bfloat16_rn(up[k]));
        }
      }
      const int64_t place = row * task.stride + output;
      if (task.floats) {
        float4* to = reinterpret_cast<float4*>(static_cast<float*>(task.output) + place);
        to[0] = {sum[0], sum[1], sum[2], sum[3]};
        to[1] = {sum[4], sum[5], sum[6], sum[7]};
      } else {
        *reinterpret_cast<Bf16x8*>(static_cast<uint16_t*>(task.output) + place) = {
            {PackBf16(sum[0], sum[1]), PackBf16(sum[2], sum[3]), PackBf16(sum[4], sum[5]), PackBf16(sum[6], sum[7])}};
      }
    }
  }

  template <int kPieces>
  __device__ void FinishTogether(const Task& task) const {
    SyncCluster();
    Finish<kPieces>(task);
    SyncCluster();  // nobody goes while others read from it
  }
};

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int kRows, int kBoxes>
__global__ void __launch_bounds__(kThreads, Form<kRows, kBoxes>::kBlocks)
    WarpgroupKernel(const __grid_constant__ CUtensorMap weights, const __grid_constant__ CUtensorMap x,
                    const __grid_constant__ Task task) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t memory[];
  uint8_t* shared = memory + (1024 - SharedAddress(memory) % 1024) % 1024;
  const Part<kRows, kBoxes> part(task, SharedAddress(shared));
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Form<kRows, kBoxes>::kStages; ++stage) {
      InitBarrier(part.Full(stage), 1);
      InitBarrier(part.Free(stage), kComputing / kWarpSize);
    }
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  }
  __syncthreads();
  // This kernel's blocks of threads have all begun when those of the next one may, and leave them no room until they
  // are done.
  LetNextBegin();
  if (threadIdx.x >= kComputing) {
    if (threadIdx.x == kComputing) part.Bring(task, &weights, &x);
    __syncwarp();
  } else {
    part.Compute(reinterpret_cast<float*>(shared));
  }
  // Outputs may be what a kernel in front still reads.
  AwaitPrevious();
  switch (task.pieces) {
    case 2:
      return part.template FinishTogether<2>(task);
    case 4:
      return part.template FinishTogether<4>(task);
    case 8:
      return part.template FinishTogether<8>(task);
    default:
      __syncthreads();
      return part.template Finish<1>(task);
  }
#endif
}

template <int kRows, int kBoxes>
int Launch(const WarpgroupOperands& operands, int32_t pieces, cudaStream_t stream) {
  using Shape = Form<kRows, kBoxes>;
  static const cudaError_t allowed = cudaFuncSetAttribute(
      WarpgroupKernel<kRows, kBoxes>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  const int32_t all = operands.gated ? 2 * operands.size : operands.size;
  const TensorMap weights = MapMatrix(operands.weights, operands.columns, all, operands.columns, kBoxOutputs);
  const TensorMap x = MapMatrix(operands.x, operands.columns, operands.rows, operands.x_stride, kRows);
  if (!weights.usable || !x.usable) return cudaErrorInvalidValue;
  Task task;
  task.output = operands.output;
  task.stride = operands.output_stride;
  task.size = operands.size;
  task.rows = operands.rows;
  task.steps = (operands.columns + kStep - 1) / kStep;
  task.pieces = pieces;
  task.floats = operands.float_output;
  task.gated = operands.gated;
  const int32_t tiles = (all + Shape::kOutputs - 1) / Shape::kOutputs;
  return LaunchEarlyInClusters(WarpgroupKernel<kRows, kBoxes>, dim3(static_cast<unsigned>(tiles * pieces)), kThreads,
                               Shape::kSharedBytes, static_cast<unsigned>(pieces), stream, weights.As<CUtensorMap>(),
                               x.As<CUtensorMap>(), task);
}

template <int kBoxes>
int LaunchFor(const WarpgroupOperands& operands, int32_t pieces, cudaStream_t stream) {
  if (operands.rows <= 16) return Launch<16, kBoxes>(operands, pieces, stream);
  if (operands.rows <= 32) return Launch<32, kBoxes>(operands, pieces, stream);
  if (operands.rows <= 64) return Launch<64, kBoxes>(operands, pieces, stream);
  return Launch<kWarpgroupProductRows, kBoxes>(operands, pieces, stream);
}

}  // namespace

bool AreServed(const WarpgroupOperands& operands) {
  static const bool hopper = IsHopper();
  return hopper && operands.size % 8 == 0 && operands.columns % 8 == 0 && operands.x_stride % 8 == 0 &&
         operands.output_stride % 8 == 0;
}

std::vector<WarpgroupPlan> WarpgroupPlans(const WarpgroupOperands& operands) {
  std::vector<WarpgroupPlan> plans;
  if (!AreServed(operands) || operands.rows > kWarpgroupProductRows) return plans;
  static const int32_t processors = Processors();
  const int64_t all = operands.gated ? int64_t{2} * operands.size : operands.size;
  const int32_t steps = (operands.columns + kStep - 1) / kStep;
  for (const int32_t outputs : {2 * kBoxOutputs, 4 * kBoxOutputs}) {
    const int64_t tiles = (all + outputs - 1) / outputs;
    const int64_t room = outputs == 2 * kBoxOutputs ? 2 * processors : processors;
    for (int32_t pieces = 1; pieces <= kMaxPieces; pieces *= 2) {
      if (pieces == 1 || (tiles * pieces <= room && steps >= kLeastSteps * pieces)) plans.push_back({outputs, pieces});
    }
  }
  return plans;
}

int WarpgroupProduct(const WarpgroupOperands& operands, const WarpgroupPlan& plan, CUstream_st* stream) {
  return plan.outputs == 2 * kBoxOutputs ? LaunchFor<2>(operands, plan.pieces, stream)
                                         : LaunchFor<4>(operands, plan.pieces, stream);
}

}  // namespace fermata::kernels::cuda
