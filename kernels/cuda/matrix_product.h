// Products of many rows, by cuBLASLt, or by WarpgroupProduct() or GatedProduct() where those are faster, with plans
// that are kept.

#ifndef FERMATA_KERNELS_CUDA_MATRIX_PRODUCT_H_
#define FERMATA_KERNELS_CUDA_MATRIX_PRODUCT_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cuda/small_product.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

// What products have in common that share plans.
struct ProductShape {
  int32_t size = 0;           // outputs of a row
  int32_t columns = 0;        // inputs
  int64_t x_stride = 0;       // elements from one row of x to the next
  int64_t output_stride = 0;  // likewise
  bool float_output = false;  // else bfloat16
  bool gated = false;         // the first half of the outputs are gates: SwiGLU of both halves goes to their place
};

// The same as SmallProducts() takes it.
SmallProductMatrix FewRowsOf(const ProductShape& shape, const uint16_t* weights, void* output);

// Owns the library's handle, a workspace and the plans. One thread at a time; one stream.
class MatrixProduct {
 public:
  // `batch_invariant`: each shape has one plan for any number of rows, so that a row's sums have one order; and one
  // of the library's that was seen to give the same bits for rows alone and in company. RESOURCE_EXHAUSTED if there is
  // no memory for the workspace. `warpgroups`: whether own kernels are tried, too.
  static absl::StatusOr<std::unique_ptr<MatrixProduct>> Create(CUstream_st* stream, bool batch_invariant,
                                                               bool warpgroups);
  ~MatrixProduct();

  // output[r][o] = sum over i of weights[o][i] * x[r][i], summed in float32. weights [size][columns] and x are
  // bfloat16. All are device memory, 16-byte aligned; columns, size and strides are multiples of 8. Asynchronous. What
  // the second half of a gated product's output then holds is undefined.
  // Without Tune(), the first product of a shape, with rows rounded up to one of a few counts, takes the library's
  // first advice; batch-invariant, it looks for a plan as Tune() does, with its own operands: that takes long.
  absl::Status Multiply(const ProductShape& shape, const uint16_t* weights, const uint16_t* x, int32_t rows,
                        void* output);

  // Measures plans for all counts of rows up to `max_rows`, and keeps the best. `weights` are matrices of the same
  // shape, used in turn; x and output have room for max_rows, and are written over. Synchronizes.
  absl::Status Tune(const ProductShape& shape, absl::Span<const uint16_t* const> weights, uint16_t* x, void* output,
                    int32_t max_rows);

 private:
  class Implementation;
  explicit MatrixProduct(std::unique_ptr<Implementation> implementation);

  std::unique_ptr<Implementation> implementation_;
};

// The count that `rows` is rounded up to when a plan is looked for.
int32_t RowBucket(int32_t rows);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_MATRIX_PRODUCT_H_
