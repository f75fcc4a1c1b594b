#include <cublasLt.h>
#include <cuda_runtime.h>

#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/matrix_product.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = 64 << 20;

absl::Status BlasStatus(cublasStatus_t status, absl::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cuBLASLt, ", what, ": ", cublasLtGetStatusString(status)));
}

// The four descriptions that a product needs. The library counts columns first: our row-major output [rows][size] is
// its [size][rows], of the transposed weights times x.
class Shape {
 public:
  Shape(int32_t size, int32_t columns, int32_t rows, bool float_output) {
    status_ = cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    Check(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
    Check(cublasLtMatrixLayoutCreate(&weights_, CUDA_R_16BF, columns, size, columns));
    Check(cublasLtMatrixLayoutCreate(&x_, CUDA_R_16BF, columns, rows, columns));
    Check(cublasLtMatrixLayoutCreate(&output_, float_output ? CUDA_R_32F : CUDA_R_16BF, size, rows, size));
  }
  ~Shape() {
    for (cublasLtMatrixLayout_t layout : {weights_, x_, output_}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
    if (product_ != nullptr) cublasLtMatmulDescDestroy(product_);
  }
  Shape(const Shape&) = delete;
  Shape& operator=(const Shape&) = delete;

  cublasStatus_t status() const { return status_; }
  cublasLtMatmulDesc_t product() const { return product_; }
  cublasLtMatrixLayout_t weights() const { return weights_; }
  cublasLtMatrixLayout_t x() const { return x_; }
  cublasLtMatrixLayout_t output() const { return output_; }

  void SetRows(uint64_t rows) {
    cublasLtMatrixLayoutSetAttribute(x_, CUBLASLT_MATRIX_LAYOUT_COLS, &rows, sizeof(rows));
    cublasLtMatrixLayoutSetAttribute(output_, CUBLASLT_MATRIX_LAYOUT_COLS, &rows, sizeof(rows));
  }

 private:
  void Check(cublasStatus_t status) {
    if (status_ == CUBLAS_STATUS_SUCCESS) status_ = status;
  }

  cublasStatus_t status_;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t weights_ = nullptr;
  cublasLtMatrixLayout_t x_ = nullptr;
  cublasLtMatrixLayout_t output_ = nullptr;
};

}  // namespace

int32_t RowBucket(int32_t rows) {
  const int32_t step = rows <= 128 ? 16 : rows <= 512 ? 64 : rows <= 2048 ? 256 : 1024;
  return (rows + step - 1) / step * step;
}

class MatrixProduct::Implementation {
 public:
  explicit Implementation(cudaStream_t stream) : stream_(stream) {}
  ~Implementation() {
    if (preference_ != nullptr) cublasLtMatmulPreferenceDestroy(preference_);
    if (handle_ != nullptr) cublasLtDestroy(handle_);
  }

  absl::Status Prepare() {
    absl::StatusOr<CudaMemory> workspace = CudaMemory::Allocate(MemoryKind::kDevice, kWorkspaceBytes);
    if (!workspace.ok()) return workspace.status();
    workspace_ = *std::move(workspace);
    cublasStatus_t status = cublasLtCreate(&handle_);
    if (status == CUBLAS_STATUS_SUCCESS) status = cublasLtMatmulPreferenceCreate(&preference_);
    if (status != CUBLAS_STATUS_SUCCESS) return BlasStatus(status, "start");
    const uint64_t bytes = kWorkspaceBytes;
    return BlasStatus(cublasLtMatmulPreferenceSetAttribute(preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                           &bytes, sizeof(bytes)),
                      "workspace");
  }

  absl::Status Multiply(const uint16_t* weights, int32_t size, int32_t columns, const uint16_t* x, int32_t rows,
                        bool float_output, void* output) {
    const Key key = {size, columns, RowBucket(rows), float_output};
    auto found = plans_.find(key);
    if (found == plans_.end()) {
      absl::StatusOr<std::unique_ptr<Plan>> plan = MakePlan(key);
      if (!plan.ok()) return plan.status();
      found = plans_.emplace(key, *std::move(plan)).first;
    }
    Plan& plan = *found->second;
    plan.shape.SetRows(rows);
    const float one = 1.0f;
    const float zero = 0.0f;
    const Shape& shape = plan.shape;
    const cublasStatus_t status = cublasLtMatmul(handle_, shape.product(), &one, weights, shape.weights(), x, shape.x(),
                                                 &zero, output, shape.output(), output, shape.output(), &plan.algorithm,
                                                 workspace_.as<void>(), kWorkspaceBytes, stream_);
    return BlasStatus(status, absl::StrCat("a product of ", rows, " rows by ", size, " x ", columns));
  }

 private:
  using Key = std::tuple<int32_t, int32_t, int32_t, bool>;  // size, columns, rows, float output

  struct Plan {
    explicit Plan(const Key& key) : shape(std::get<0>(key), std::get<1>(key), std::get<2>(key), std::get<3>(key)) {}
    Shape shape;
    cublasLtMatmulAlgo_t algorithm = {};
  };

  absl::StatusOr<std::unique_ptr<Plan>> MakePlan(const Key& key) {
    auto plan = std::make_unique<Plan>(key);
    const Shape& shape = plan->shape;
    if (shape.status() != CUBLAS_STATUS_SUCCESS) return BlasStatus(shape.status(), "layouts");
    cublasLtMatmulHeuristicResult_t result = {};
    int found = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, shape.product(), shape.weights(), shape.x(), shape.output(),
                                       shape.output(), preference_, 1, &result, &found);
    if (status != CUBLAS_STATUS_SUCCESS || found == 0) {
      return BlasStatus(
          status == CUBLAS_STATUS_SUCCESS ? CUBLAS_STATUS_NOT_SUPPORTED : status,
          absl::StrCat("no plan for ", std::get<2>(key), " rows by ", std::get<0>(key), " x ", std::get<1>(key)));
    }
    plan->algorithm = result.algo;
    return plan;
  }

  cudaStream_t stream_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
  CudaMemory workspace_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

MatrixProduct::MatrixProduct(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}

MatrixProduct::~MatrixProduct() = default;

absl::StatusOr<std::unique_ptr<MatrixProduct>> MatrixProduct::Create(CUstream_st* stream) {
  auto implementation = std::make_unique<Implementation>(stream);
  const absl::Status status = implementation->Prepare();
  if (!status.ok()) return status;
  return std::unique_ptr<MatrixProduct>(new MatrixProduct(std::move(implementation)));
}

absl::Status MatrixProduct::Multiply(const uint16_t* weights, int32_t size, int32_t columns, const uint16_t* x,
                                     int32_t rows, bool float_output, void* output) {
  return implementation_->Multiply(weights, size, columns, x, rows, float_output, output);
}

}  // namespace fermata::kernels::cuda
