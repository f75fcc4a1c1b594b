// RMS norm on the device.

#ifndef FERMATA_KERNELS_CUDA_RMS_NORM_H_
#define FERMATA_KERNELS_CUDA_RMS_NORM_H_

#include <cstdint>

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

// output[r][i] = x[r][i] / sqrt(mean(x[r]^2) + epsilon) * weight[i], for `rows` rows of `size` elements.
//
// All pointers are device memory, float32, not overlapping but for output == x: x and output are [rows][size], weight
// is [size]. Any row's result depends on that row alone, whatever `rows` is: one block of threads reduces one row, in
// an order fixed by `size`. Asynchronous on `stream`. Returns the cudaError_t of the launch (0: launched); `rows` of 0
// is no launch.
//
// Algorithm: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
int RmsNorm(const float* x, const float* weight, float epsilon, int64_t rows, int32_t size, float* output,
            CUstream_st* stream);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_RMS_NORM_H_
