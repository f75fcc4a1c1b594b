// SwiGLU in the end of the product that it is of, for many rows: bounded by multiplying, so that a pass over gates and
// what passes through them, and a kernel's beginning and end, are worth sparing.

#ifndef FERMATA_KERNELS_CUDA_GATED_PRODUCT_H_
#define FERMATA_KERNELS_CUDA_GATED_PRODUCT_H_

#include <cstdint>
#include <vector>

#include "kernels/cuda/warpgroup_product.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

// How a product is shared out.
struct GatedPlan {
  int32_t outputs = 0;  // of a tile, besides their gates: 112 or 128
  int32_t cluster = 1;  // 1 or 2: tiles of 128 rows, one below the other, that weights are brought to at once
};

// The plans that may be the best, to be measured; none where the device or the operands are not served, as those are
// that are not gated, or of few rows.
std::vector<GatedPlan> GatedPlans(const WarpgroupOperands& operands);

// output[r][o] = silu(gate) * up, where gate is the sum over i of weights[o][i] * x[r][i], up that of weights[size + o]
// and both are summed in float32 and rounded to bfloat16. Asynchronous on `stream`; returns the launch's cudaError_t
// (0: launched). REQUIRES: the plan is one of GatedPlans().
int GatedProduct(const WarpgroupOperands& operands, const GatedPlan& plan, CUstream_st* stream);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_GATED_PRODUCT_H_
