// Products of many rows, by cuBLASLt, with plans that are kept.

#ifndef FERMATA_KERNELS_CUDA_MATRIX_PRODUCT_H_
#define FERMATA_KERNELS_CUDA_MATRIX_PRODUCT_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

// Owns the library's handle, a workspace and the plans. One thread at a time; one stream.
class MatrixProduct {
 public:
  // RESOURCE_EXHAUSTED if there is no memory for the workspace.
  static absl::StatusOr<std::unique_ptr<MatrixProduct>> Create(CUstream_st* stream);
  ~MatrixProduct();

  // output[r][o] = sum over i of weights[o][i] * x[r][i], summed in float32. weights [size][columns] and x
  // [rows][columns] are bfloat16; output [rows][size] is float32 if `float_output`, else bfloat16. All are device
  // memory, 16-byte aligned; columns and size are multiples of 8. Asynchronous. The first product of a shape, with rows
  // rounded up to one of a few counts, looks for a plan; later ones find it.
  absl::Status Multiply(const uint16_t* weights, int32_t size, int32_t columns, const uint16_t* x, int32_t rows,
                        bool float_output, void* output);

 private:
  class Implementation;
  explicit MatrixProduct(std::unique_ptr<Implementation> implementation);

  std::unique_ptr<Implementation> implementation_;
};

// The count that `rows` is rounded up to when a plan is looked for.
int32_t RowBucket(int32_t rows);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_MATRIX_PRODUCT_H_
