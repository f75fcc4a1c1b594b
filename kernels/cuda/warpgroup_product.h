// Products of a few dozen rows, bounded by reading the weights, by Hopper's own means: the tensor memory accelerator
// brings weights far ahead of the warpgroups that multiply them, and each weight is read once.

#ifndef FERMATA_KERNELS_CUDA_WARPGROUP_PRODUCT_H_
#define FERMATA_KERNELS_CUDA_WARPGROUP_PRODUCT_H_

#include <cstdint>
#include <vector>

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

inline constexpr int32_t kWarpgroupProductRows = 128;

// How a product is shared out.
struct WarpgroupPlan {
  int32_t outputs = 0;  // of a block of threads: 128, two of which share a processor, or 256
  int32_t pieces = 1;   // that the columns are cut into: 1, 2, 4 or 8, the blocks of threads of a cluster
};

// All pointers are device memory, 16-byte aligned. Columns, size and strides are multiples of 8.
struct WarpgroupOperands {
  const uint16_t* weights = nullptr;  // bfloat16, [size][columns]; gated [2 * size][columns], the gates first
  int32_t size = 0;                   // outputs
  int32_t columns = 0;
  const uint16_t* x = nullptr;  // bfloat16, [rows][columns]
  int64_t x_stride = 0;         // elements from one row to the next
  int32_t rows = 0;             // WarpgroupPlans() has none for more than kWarpgroupProductRows
  void* output = nullptr;       // [rows][size]
  int64_t output_stride = 0;    // elements likewise
  bool float_output = false;    // else bfloat16
  bool gated = false;           // output = silu(gate) * up, each rounded to bfloat16 before; not with float_output
};

// Whether the device that is set, and such sizes and strides, are served at all, by these products or gated ones.
bool AreServed(const WarpgroupOperands& operands);

// The plans that may be the best, to be measured; none where the device or the operands are not served.
std::vector<WarpgroupPlan> WarpgroupPlans(const WarpgroupOperands& operands);

// output[r][o] = sum over i of weights[o][i] * x[r][i], summed in float32, the pieces in their order. Asynchronous on
// `stream`; returns the launch's cudaError_t (0: launched). REQUIRES: the plan is one of WarpgroupPlans().
int WarpgroupProduct(const WarpgroupOperands& operands, const WarpgroupPlan& plan, CUstream_st* stream);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_WARPGROUP_PRODUCT_H_
