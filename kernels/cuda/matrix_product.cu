#include <cublasLt.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/gated_product.h"
#include "kernels/cuda/matrix_product.h"
#include "kernels/cuda/row_kernels.h"
#include "kernels/cuda/warpgroup_product.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = 64 << 20;
constexpr int kCandidates = 16;
constexpr size_t kFinalists = 3;
constexpr int kTuningRounds = 4;
constexpr int kMeasuredProducts = 6;
constexpr int32_t kCompanyRows = 200;

absl::Status BlasStatus(cublasStatus_t status, absl::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cuBLASLt, ", what, ": ", cublasLtGetStatusString(status)));
}

// The four descriptions that the library needs of a product. The library counts columns first: our row-major output
// [rows][size] is its [size][rows], of the transposed weights times x.
class Description {
 public:
  Description(const ProductShape& shape, int32_t rows) {
    status_ = cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    Check(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
    Check(cublasLtMatrixLayoutCreate(&weights_, CUDA_R_16BF, shape.columns, shape.size, shape.columns));
    Check(cublasLtMatrixLayoutCreate(&x_, CUDA_R_16BF, shape.columns, rows, shape.x_stride));
    Check(cublasLtMatrixLayoutCreate(&output_, shape.float_output ? CUDA_R_32F : CUDA_R_16BF, shape.size, rows,
                                     shape.output_stride));
  }
  ~Description() {
    for (cublasLtMatrixLayout_t layout : {weights_, x_, output_}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
    if (product_ != nullptr) cublasLtMatmulDescDestroy(product_);
  }
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;

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

// Two events of the device.
class Stopwatch {
 public:
  explicit Stopwatch(cudaStream_t stream) : stream_(stream) {
    cudaEventCreate(&begin_);
    cudaEventCreate(&end_);
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  void Start() { cudaEventRecord(begin_, stream_); }

  // Milliseconds since; waits.
  absl::StatusOr<float> Stop() {
    float milliseconds = 0;
    cudaEventRecord(end_, stream_);
    cudaError_t error = cudaEventSynchronize(end_);
    if (error == cudaSuccess) error = cudaEventElapsedTime(&milliseconds, begin_, end_);
    if (error != cudaSuccess) return CudaStatus(error, "measuring products");
    return milliseconds;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

bool OperationsAreWhole(const cublasLtMatmulAlgo_t& algorithm) {
  int32_t pieces = 0;
  uint32_t reduction = 0;
  size_t written = 0;
  cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &pieces, sizeof(pieces), &written);
  cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &reduction, sizeof(reduction),
                                       &written);
  return pieces <= 1 && reduction == CUBLASLT_REDUCTION_SCHEME_NONE;
}

}  // namespace

int32_t RowBucket(int32_t rows) {
  const int32_t step = rows <= 128 ? 16 : rows <= 512 ? 64 : rows <= 2048 ? 256 : 1024;
  return (rows + step - 1) / step * step;
}

SmallProductMatrix FewRowsOf(const ProductShape& shape, const uint16_t* weights, void* output) {
  const bool floats = shape.float_output;
  return {weights, shape.size, floats ? nullptr : static_cast<uint16_t*>(output),
          floats ? static_cast<float*>(output) : nullptr, shape.output_stride};
}

class MatrixProduct::Implementation {
 public:
  Implementation(cudaStream_t stream, bool batch_invariant, bool warpgroups)
      : stream_(stream), batch_invariant_(batch_invariant), warpgroups_(warpgroups) {}
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

  absl::Status Multiply(const ProductShape& shape, const uint16_t* weights, const uint16_t* x, int32_t rows,
                        void* output) {
    auto found = plans_.find(KeyOf(shape, rows));
    if (found == plans_.end()) {
      const absl::Status made = batch_invariant_ ? TuneInvariant(shape, {weights}) : TakeAdvice(shape, rows);
      if (!made.ok()) return made;
      found = plans_.find(KeyOf(shape, rows));
    }
    return Launch(*found->second, weights, x, rows, output);
  }

  absl::Status Tune(const ProductShape& shape, absl::Span<const uint16_t* const> weights, uint16_t* x, void* output,
                    int32_t max_rows) {
    if (batch_invariant_) {
      return plans_.count(KeyOf(shape, 1)) > 0 ? absl::OkStatus() : TuneInvariant(shape, weights);
    }
    FillWithNoise(int64_t{max_rows} * shape.x_stride, x, stream_);
    // The buckets that are full within max_rows, and the last one.
    for (int32_t rows = 1; rows <= max_rows; rows = RowBucket(rows) + 1) {
      const absl::Status status = TuneRows(shape, weights, x, output, std::min(RowBucket(rows), max_rows));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  using Key = std::tuple<int32_t, int32_t, int64_t, int64_t, bool, bool, int32_t>;  // a shape, and rows or 0

  Key KeyOf(const ProductShape& shape, int32_t rows) const {
    return {shape.size,
            shape.columns,
            shape.x_stride,
            shape.output_stride,
            shape.float_output,
            shape.gated,
            batch_invariant_ ? 0 : RowBucket(rows)};
  }

  struct FewAtATime {};  // by SmallProducts()

  using Choice = std::variant<cublasLtMatmulAlgo_t, WarpgroupPlan, GatedPlan, FewAtATime>;

  struct Plan {
    Plan(const ProductShape& of, int32_t rows) : shape(of), description(of, rows) {}
    const ProductShape shape;
    Description description;
    Choice choice;
  };

  struct Candidate {
    float milliseconds;
    Choice choice;
  };

  static WarpgroupOperands Operands(const ProductShape& shape, const uint16_t* weights, const uint16_t* x, int32_t rows,
                                    void* output) {
    return {weights,
            shape.gated ? shape.size / 2 : shape.size,
            shape.columns,
            x,
            shape.x_stride,
            rows,
            output,
            shape.output_stride,
            shape.float_output,
            shape.gated};
  }

  absl::Status Launch(Plan& plan, const uint16_t* weights, const uint16_t* x, int32_t rows, void* output) {
    const ProductShape& shape = plan.shape;
    if (const auto* own = std::get_if<WarpgroupPlan>(&plan.choice)) {
      return CudaStatus(WarpgroupProduct(Operands(shape, weights, x, rows, output), *own, stream_),
                        "a product by warpgroups");
    }
    if (const auto* gated = std::get_if<GatedPlan>(&plan.choice)) {
      return CudaStatus(GatedProduct(Operands(shape, weights, x, rows, output), *gated, stream_), "a gated product");
    }
    const absl::Status status = LaunchUngated(plan, weights, x, rows, output);
    if (!status.ok() || !shape.gated) return status;
    uint16_t* gate = static_cast<uint16_t*>(output);
    return CudaStatus(SwiGlu(gate + shape.size / 2, rows, shape.size / 2, shape.output_stride, gate, stream_),
                      "SwiGLU");
  }

  // By the library, or a few rows at a time, neither of which have SwiGLU in them.
  absl::Status LaunchUngated(Plan& plan, const uint16_t* weights, const uint16_t* x, int32_t rows, void* output) {
    const ProductShape& shape = plan.shape;
    const auto* algorithm = std::get_if<cublasLtMatmulAlgo_t>(&plan.choice);
    if (algorithm == nullptr) {
      return CudaStatus(
          SmallProducts({FewRowsOf(shape, weights, output)}, x, shape.x_stride, rows, shape.columns, stream_),
          "a product of few rows at a time");
    }
    Description& d = plan.description;
    d.SetRows(rows);
    const float one = 1.0f;
    const float zero = 0.0f;
    const cublasStatus_t status =
        cublasLtMatmul(handle_, d.product(), &one, weights, d.weights(), x, d.x(), &zero, output, d.output(), output,
                       d.output(), algorithm, workspace_.as<void>(), kWorkspaceBytes, stream_);
    if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
    return BlasStatus(status, absl::StrCat("a product of ", rows, " rows"));
  }

  // The library's advice, best first by its own estimate.
  absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> Advice(const Description& d, int count, absl::string_view what) {
    if (d.status() != CUBLAS_STATUS_SUCCESS) return BlasStatus(d.status(), "layouts");
    std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(count));
    int found = 0;
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, d.product(), d.weights(), d.x(), d.output(),
                                                           d.output(), preference_, count, results.data(), &found);
    if (status == CUBLAS_STATUS_SUCCESS && found == 0) status = CUBLAS_STATUS_NOT_SUPPORTED;
    if (status != CUBLAS_STATUS_SUCCESS) return BlasStatus(status, what);
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; i < found; ++i) algorithms.push_back(results[static_cast<size_t>(i)].algo);
    return algorithms;
  }

  absl::Status TakeAdvice(const ProductShape& shape, int32_t rows) {
    auto plan = std::make_unique<Plan>(shape, RowBucket(rows));
    auto advice = Advice(plan->description, 1, "a plan");
    if (!advice.ok()) return advice.status();
    plan->choice = (*advice)[0];
    plans_[KeyOf(shape, rows)] = std::move(plan);
    return absl::OkStatus();
  }

  // Milliseconds of a few products; beyond any if the library refuses.
  absl::StatusOr<float> Measure(Plan& plan, absl::Span<const uint16_t* const> weights, const uint16_t* x, int32_t rows,
                                void* output) {
    if (!Launch(plan, weights[0], x, rows, output).ok()) return kNever;
    float best = kNever;
    for (int round = 0; round < 2; ++round) {
      Stopwatch watch(stream_);
      watch.Start();
      for (int i = 0; i < kMeasuredProducts; ++i) {
        const uint16_t* matrix = weights[static_cast<size_t>(next_++) % weights.size()];
        const absl::Status launched = Launch(plan, matrix, x, rows, output);
        if (!launched.ok()) return launched;
      }
      const absl::StatusOr<float> milliseconds = watch.Stop();
      if (!milliseconds.ok()) return milliseconds;
      best = std::min(best, *milliseconds);
    }
    return best;
  }

  absl::Status TuneRows(const ProductShape& shape, absl::Span<const uint16_t* const> weights, const uint16_t* x,
                        void* output, int32_t rows) {
    const Key key = KeyOf(shape, rows);
    if (plans_.count(key) > 0) return absl::OkStatus();
    auto plan = std::make_unique<Plan>(shape, rows);
    auto advice = Advice(plan->description, kCandidates, "plans");
    if (!advice.ok()) return advice.status();
    std::vector<Candidate> candidates;
    for (const cublasLtMatmulAlgo_t& algorithm : *advice) candidates.push_back({kNever, algorithm});
    if (warpgroups_) {
      const WarpgroupOperands operands = Operands(shape, weights[0], x, rows, output);
      for (const WarpgroupPlan& own : WarpgroupPlans(operands)) candidates.push_back({kNever, own});
      for (const GatedPlan& gated : GatedPlans(operands)) candidates.push_back({kNever, gated});
    }
    // The best of the first round are measured again, in turn: a device that becomes warm slows all of them down.
    for (int round = 0; round < kTuningRounds; ++round) {
      for (Candidate& candidate : candidates) {
        plan->choice = candidate.choice;
        const absl::StatusOr<float> milliseconds = Measure(*plan, weights, x, rows, output);
        if (!milliseconds.ok()) return milliseconds.status();
        candidate.milliseconds = round == 0 ? *milliseconds : candidate.milliseconds + *milliseconds;
      }
      std::stable_sort(candidates.begin(), candidates.end(),
                       [](const Candidate& a, const Candidate& b) { return a.milliseconds < b.milliseconds; });
      candidates.resize(std::min(candidates.size(), kFinalists));
    }
    plan->choice = candidates[0].choice;
    plans_[key] = std::move(plan);
    return absl::OkStatus();
  }

  // One plan for all: the one that takes least over a few counts of rows, of those that sum in one piece and give the
  // same bits for rows alone as in company.
  absl::Status TuneInvariant(const ProductShape& shape, absl::Span<const uint16_t* const> weights) {
    const int64_t element = shape.float_output ? sizeof(float) : sizeof(uint16_t);
    auto x = CudaMemory::Allocate(MemoryKind::kDevice, kCompanyRows * shape.x_stride * int64_t{sizeof(uint16_t)});
    auto output = CudaMemory::Allocate(MemoryKind::kDevice, 2 * kCompanyRows * shape.output_stride * element);
    if (!x.ok()) return x.status();
    if (!output.ok()) return output.status();
    FillWithNoise(kCompanyRows * shape.x_stride, x->as<uint16_t>(), stream_);
    float best = kNever;
    for (const int32_t advised : {16, 64, 128, 256, 2048}) {
      auto plan = std::make_unique<Plan>(shape, advised);
      auto advice = Advice(plan->description, kCandidates, "plans");
      if (!advice.ok()) continue;
      for (const cublasLtMatmulAlgo_t& algorithm : *advice) {
        if (!OperationsAreWhole(algorithm)) continue;
        plan->choice = algorithm;
        float total = 0;
        for (const int32_t rows : {1, 64, kCompanyRows}) {
          const absl::StatusOr<float> measured = Measure(*plan, weights, x->as<uint16_t>(), rows, output->as<void>());
          if (!measured.ok()) return measured.status();
          total += *measured;
        }
        if (total >= best) continue;
        const absl::StatusOr<bool> same = SameInCompany(*plan, shape, weights[0], x->as<uint16_t>(), *output);
        if (!same.ok()) return same.status();
        if (!*same) continue;
        best = total;
        auto kept = std::make_unique<Plan>(shape, advised);
        kept->choice = algorithm;
        plans_[KeyOf(shape, 1)] = std::move(kept);
      }
    }
    if (plans_.count(KeyOf(shape, 1)) > 0) return absl::OkStatus();
    // It has none, as for a few outputs: sums of so many columns are always cut.
    auto plan = std::make_unique<Plan>(shape, kSmallProductRows);
    plan->choice = FewAtATime();
    plans_[KeyOf(shape, 1)] = std::move(plan);
    return absl::OkStatus();
  }

  // Whether rows that are given alone, or few together, come out as they do among kCompanyRows.
  absl::StatusOr<bool> SameInCompany(Plan& plan, const ProductShape& shape, const uint16_t* weights, const uint16_t* x,
                                     const CudaMemory& memory) {
    const size_t element = shape.float_output ? sizeof(float) : sizeof(uint16_t);
    const size_t row_bytes = static_cast<size_t>(shape.output_stride) * element;
    uint8_t* whole = memory.as<uint8_t>();
    uint8_t* parts = whole + kCompanyRows * row_bytes;
    if (!Launch(plan, weights, x, kCompanyRows, whole).ok()) return false;  // the library refuses that many
    int32_t first = 0;
    for (const int32_t rows : {1, 2, 7, 8, 9, 16, 33, 1, 64, 59}) {
      uint8_t* part = parts + static_cast<size_t>(first) * row_bytes;
      if (!Launch(plan, weights, x + first * shape.x_stride, rows, part).ok()) return false;
      first += rows;
    }
    std::vector<uint8_t> host(2 * kCompanyRows * row_bytes);
    cudaError_t error = cudaMemcpyAsync(host.data(), whole, host.size(), cudaMemcpyDeviceToHost, stream_);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream_);
    if (error != cudaSuccess) return CudaStatus(error, "comparing products");
    const size_t size_bytes = static_cast<size_t>(shape.size) * element;
    for (size_t r = 0; r < static_cast<size_t>(kCompanyRows); ++r) {
      const uint8_t* row = host.data() + r * row_bytes;
      if (!std::equal(row, row + size_bytes, row + kCompanyRows * row_bytes)) return false;
    }
    return true;
  }

  static constexpr float kNever = 1e30f;

  cudaStream_t stream_;
  const bool batch_invariant_;
  const bool warpgroups_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
  CudaMemory workspace_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
  uint32_t next_ = 0;  // matrix to measure with
};

MatrixProduct::MatrixProduct(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}

MatrixProduct::~MatrixProduct() = default;

absl::StatusOr<std::unique_ptr<MatrixProduct>> MatrixProduct::Create(CUstream_st* stream, bool batch_invariant,
                                                                     bool warpgroups) {
  auto implementation = std::make_unique<Implementation>(stream, batch_invariant, warpgroups);
  const absl::Status status = implementation->Prepare();
  if (!status.ok()) return status;
  return std::unique_ptr<MatrixProduct>(new MatrixProduct(std::move(implementation)));
}

absl::Status MatrixProduct::Multiply(const ProductShape& shape, const uint16_t* weights, const uint16_t* x,
                                     int32_t rows, void* output) {
  return implementation_->Multiply(shape, weights, x, rows, output);
}

absl::Status MatrixProduct::Tune(const ProductShape& shape, absl::Span<const uint16_t* const> weights, uint16_t* x,
                                 void* output, int32_t max_rows) {
  return implementation_->Tune(shape, weights, x, output, max_rows);
}

}  // namespace fermata::kernels::cuda
