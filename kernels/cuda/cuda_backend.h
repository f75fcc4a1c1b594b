// A CUDA device as a back end: activations, weights and KV in bfloat16, sums in float32.

#ifndef FERMATA_KERNELS_CUDA_CUDA_BACKEND_H_
#define FERMATA_KERNELS_CUDA_CUDA_BACKEND_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/backend.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/matrix_product.h"

namespace fermata::kernels {

// Weights of any type become bfloat16 on the device (vectors float32). Asynchronous on one stream of its own. Matrices
// have columns that are a multiple of 8; heads are of 16, 32, 64, 80, 96 or 128 elements. One thread at a time.
class CudaBackend : public Backend {
 public:
  // Uses device 0. UNAVAILABLE if there is none that this build's kernels run on.
  static absl::StatusOr<std::unique_ptr<CudaBackend>> Create(const cuda::DeviceOptions& options);
  ~CudaBackend() override;

  absl::StatusOr<std::unique_ptr<Weights>> Prepare(const WeightView& view) override;
  absl::StatusOr<std::vector<std::unique_ptr<Weights>>> PrepareTogether(absl::Span<const WeightView> views) override;
  bool KeepsViews() const override { return false; }
  bool batch_invariant() const override;
  bool asynchronous() const override { return true; }
  int64_t free_memory_bytes() const override;
  int64_t total_memory_bytes() const override;
  int32_t kv_element_bytes() const override { return 2; }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t element_count) override;
  absl::StatusOr<std::unique_ptr<Buffer>> AllocateFloats(int64_t element_count) override;
  absl::StatusOr<std::vector<std::unique_ptr<Buffer>>> AllocateTogether(int64_t rows,
                                                                        absl::Span<const int64_t> sizes) override;
  absl::Status SetRope(absl::Span<const float> frequencies) override;
  absl::Status AllocateKv(const KvShape& shape) override;
  int64_t kv_block_bytes() const override;
  absl::Status CopyKvToHost(absl::Span<const KvBlockCopy> copies) override;
  absl::Status CopyKvFromHost(absl::Span<const KvBlockCopy> copies) override;
  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(int64_t bytes) override;
  void BeginStep(absl::Span<const Segment> segments) override;
  void Embed(const Weights& table, absl::Span<const int32_t> tokens, Buffer& output) override;
  void RmsNorm(const Weights& weight, float epsilon, const Buffer& x, int32_t rows, Buffer& output) override;
  void AddRmsNorm(const Weights& weight, float epsilon, const Buffer& delta, int32_t rows, Buffer& x,
                  Buffer& output) override;
  void MatMul(absl::Span<const Product> products, const Buffer& x, int32_t rows) override;
  absl::Status TuneMatMul(absl::Span<const std::vector<Product>> alike, Buffer& x, int32_t max_rows) override;
  absl::Status TuneGatedMatMul(absl::Span<const std::vector<Product>> alike, Buffer& x, int32_t max_rows) override;
  void RopeAndStore(int32_t layer, int32_t head_count, Buffer& q, Buffer& k, const Buffer& v) override;
  void Attention(int32_t layer, int32_t head_count, const Buffer& q, Buffer& output) override;
  void SwiGlu(const Buffer& up, int32_t rows, int32_t size, Buffer& gate) override;
  void GatedMatMul(const Product& gate, const Product& up, const Buffer& x, int32_t rows) override;
  bool PassLayer(const LayerPassage& passage, int32_t rows) override;
  void AddBias(const Weights& bias, int32_t rows, Buffer& x) override;
  void Add(const Buffer& y, int64_t count, Buffer& x) override;
  void GatherRows(const Buffer& x, absl::Span<const int32_t> indices, int32_t size, Buffer& output) override;
  bool DrawsTokens() const override { return true; }
  absl::StatusOr<absl::Span<const int32_t>> DrawTokens(const Buffer& logits, int32_t first_row, int32_t size,
                                                       absl::Span<const Draw> draws) override;
  int32_t max_logit_changes() const override;
  absl::StatusOr<absl::Span<const SelectedToken>> SelectTokens(Buffer& logits, int32_t first_row, int32_t size,
                                                               absl::Span<const Selection> selections,
                                                               absl::Span<const LogitChange> changes) override;
  absl::Status Record(int32_t rows, absl::FunctionRef<void()> ask) override;
  bool Replay(absl::Span<const Segment> segments, absl::Span<const int32_t> tokens,
              absl::Span<const int32_t> output_rows) override;
  absl::Status Synchronize() override;
  absl::StatusOr<absl::Span<const float>> ToHost(const Buffer& floats, int64_t count) override;

  // On the device, of the last step that ended with DrawTokens(); below 0: unknown, or steps are not timed. REQUIRES:
  // Synchronize() since.
  double LastStepSeconds() const;

  // The elements of a buffer as float32, whichever they are, in memory of the host: for tests. Synchronizes.
  absl::Status Read(const Buffer& buffer, absl::Span<float> values);

  // Fills a buffer, rounded to its element type: for tests. Synchronizes.
  absl::Status Write(absl::Span<const float> values, Buffer& buffer);

 private:
  // Products of matrices that were made ready together, into buffers that were allocated together, are one.
  struct WholeProduct {
    cuda::ProductShape shape;
    const uint16_t* weights;
    void* output;
  };

  explicit CudaBackend(std::unique_ptr<cuda::DeviceState> device);

  // RopeAndStore() as it was asked for, where Attention() may do it on the way.
  struct PendingRope {
    int32_t layer = -1;  // none
    int32_t head_count = 0;
    uint16_t* q = nullptr;
    int64_t q_stride = 0;
    const uint16_t* k = nullptr;
    int64_t k_stride = 0;
    const uint16_t* v = nullptr;
    int64_t v_stride = 0;
  };

  // What every operation begins with: whether there was no error, and nothing is pending.
  bool Ready();

  std::vector<WholeProduct> Unite(absl::Span<const Product> products, const Buffer& x) const;

  // TuneMatMul() of either kind.
  absl::Status Tune(absl::Span<const std::vector<Product>> alike, bool gated, Buffer& x, int32_t max_rows);

  // Whether it is for SmallProducts().
  bool IsSmall(const WholeProduct& product, int32_t rows) const;

  absl::StatusOr<std::unique_ptr<Buffer>> AllocateBuffer(int64_t bytes, bool floats);

  // To or from the device, and waits.
  absl::Status Copy(const void* from, void* to, int64_t bytes);

  std::unique_ptr<cuda::DeviceState> device_;
  cuda::CudaMemory changed_logits_;
  cuda::CudaMemory selected_;  // pinned
  PendingRope pending_;
};

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CUDA_CUDA_BACKEND_H_
