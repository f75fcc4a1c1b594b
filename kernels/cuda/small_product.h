// Products of few rows, bounded by reading the weights: each weight is read once, by tensor cores' fragments straight
// from memory.

#ifndef FERMATA_KERNELS_CUDA_SMALL_PRODUCT_H_
#define FERMATA_KERNELS_CUDA_SMALL_PRODUCT_H_

#include <cstdint>
#include <vector>

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

inline constexpr int32_t kSmallProductRows = 8;
inline constexpr int32_t kSmallProductMatrices = 3;
inline constexpr int32_t kSmallProductAlignment = 8;  // columns are a multiple of it

// One matrix and where its products go.
struct SmallProductMatrix {
  const uint16_t* weights = nullptr;  // bfloat16, [size][columns], 16-byte aligned
  int32_t size = 0;                   // outputs
  uint16_t* output = nullptr;         // bfloat16, [rows][size]; null: floats are written instead
  float* float_output = nullptr;      // [rows][size]
  int64_t stride = 0;                 // elements from one row of the output to the next
};

// For each of `count` matrices: output[r][o] = sum over i of weights[o][i] * x[r][i], summed in float32.
// x: bfloat16, [rows][columns], rows x_stride apart, each 16-byte aligned. 1 to kSmallProductRows rows, 1 to
// kSmallProductMatrices matrices, one launch. A row's result depends on that row alone. All pointers are device memory;
// asynchronous on `stream`. Returns the launch's cudaError_t (0: launched).
int SmallProduct(const SmallProductMatrix* matrices, int32_t count, const uint16_t* x, int64_t x_stride, int32_t rows,
                 int32_t columns, CUstream_st* stream);

// Of a matrix of 2 * size outputs, the gates first: output[r][i] = silu(gate) * up, each rounded to bfloat16 before.
// Else as SmallProduct().
int SmallGatedProduct(const SmallProductMatrix& matrix, const uint16_t* x, int64_t x_stride, int32_t rows,
                      int32_t columns, CUstream_st* stream);

// The same as SmallProduct() for any number of matrices and of rows, in as many launches as it takes. Returns the first
// that was refused.
int SmallProducts(std::vector<SmallProductMatrix> matrices, const uint16_t* x, int64_t x_stride, int32_t rows,
                  int32_t columns, CUstream_st* stream);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_SMALL_PRODUCT_H_
