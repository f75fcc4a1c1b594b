// The operations of a forward pass on rows, besides products and attention, on the device.
//
// All pointers are device memory; Bf16 is bfloat16's bits. Each call is one launch, asynchronous on `stream`, and
// returns the launch's cudaError_t (0: launched). `rows` or `count` of 0 is no launch. Arithmetic is float32; results
// are rounded to bfloat16 once. A row's result depends on that row alone.

#ifndef FERMATA_KERNELS_CUDA_ROW_KERNELS_H_
#define FERMATA_KERNELS_CUDA_ROW_KERNELS_H_

#include <cstdint>

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

using Bf16 = uint16_t;

// output[r] = row indices[r] of x; rows of `size`. For the embedding's table as well.
int GatherRows(const Bf16* x, const int32_t* indices, int64_t rows, int32_t size, Bf16* output, CUstream_st* stream);

// Where rows lie that are parts of wider ones: row r begins at (r / count) * stride + (r % count) * size.
struct RowLayout {
  int32_t count = 1;   // rows of a wider one
  int64_t stride = 0;  // elements from one wider row to the next; 0: nothing lies between
};

// x[r] += delta[r] unless delta is null; then output[r][i] = x[r][i] / sqrt(mean(x[r]^2) + epsilon) * weight[i]. The
// mean is taken over x as it was rounded. x is not written where delta is null; output may then be x. `layout` is that
// of x, of delta and of output.
//
// Algorithm: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
int RmsNorm(const Bf16* delta, const float* weight, float epsilon, int64_t rows, int32_t size, RowLayout layout,
            Bf16* x, Bf16* output, CUstream_st* stream);

// x[r][i] += bias[i], with rows of x `stride` apart.
int AddBias(const float* bias, int64_t rows, int32_t size, int64_t stride, Bf16* x, CUstream_st* stream);

// x[i] += y[i].
int Add(const Bf16* y, int64_t count, Bf16* x, CUstream_st* stream);

// gate[r][i] = silu(gate[r][i]) * up[r][i], with rows of both `stride` apart. At most 65535 rows.
int SwiGlu(const Bf16* up, int32_t rows, int32_t size, int64_t stride, Bf16* gate, CUstream_st* stream);

// x[i] = something between -2 and 2, the same each time: to measure with, since zeros compute faster.
int FillWithNoise(int64_t count, Bf16* x, CUstream_st* stream);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_ROW_KERNELS_H_
