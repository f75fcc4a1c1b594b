// The CPU as a device: one class, two ways to multiply.

#ifndef FERMATA_KERNELS_CPU_CPU_BACKEND_H_
#define FERMATA_KERNELS_CPU_CPU_BACKEND_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/quantized_rows.h"
#include "kernels/cpu/row_ops.h"
#include "kernels/cpu/thread_pool.h"

namespace fermata::kernels {

struct CpuBackendOptions {
  int threads = 1;  // at least 1

  // Exact: weights dequantised to float32, plain loops, nothing quantised. The reference that everything is held
  // against. Otherwise fast: quantised weights times 8-bit activations, vector instructions.
  bool exact = false;

  // For the fast products. Every set gives the same bits.
  InstructionSet instruction_set = InstructionSet::kPlain;
};

// Synchronous: each operation is done when it returns. One thread at a time may use it.
class CpuBackend : public Backend {
 public:
  // REQUIRES: options.instruction_set is supported here.
  explicit CpuBackend(const CpuBackendOptions& options);

  // Fast, with the best instructions that this machine has.
  static CpuBackendOptions BestOptions(int threads);

  absl::StatusOr<std::unique_ptr<Weights>> Prepare(const WeightView& view) override;
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t float_count) override;
  absl::Status AllocateKv(const KvShape& shape) override;
  int64_t kv_block_bytes() const override;
  absl::Status CopyKvToHost(absl::Span<const KvBlockCopy> copies) override;
  absl::Status CopyKvFromHost(absl::Span<const KvBlockCopy> copies) override;
  void Embed(const Weights& table, absl::Span<const int32_t> tokens, float* output) override;
  void RmsNorm(const Weights& weight, float epsilon, const float* x, int32_t rows, float* output) override;
  void MatMul(absl::Span<const Product> products, const float* x, int32_t rows) override;
  void RopeAndStore(absl::Span<const Segment> segments, int32_t layer, int32_t head_count, const float* frequencies,
                    float* q, float* k, const float* v) override;
  void Attention(absl::Span<const Segment> segments, int32_t layer, int32_t head_count, const float* q,
                 float* output) override;
  void SwiGlu(const float* up, int32_t rows, int32_t size, float* gate) override;
  void AddBias(const Weights& bias, int32_t rows, float* x) override;
  void Add(const float* y, int64_t count, float* x) override;
  void GatherRows(const float* x, absl::Span<const int32_t> indices, int32_t size, float* output) override;
  absl::Status Synchronize() override { return absl::OkStatus(); }
  absl::StatusOr<absl::Span<const float>> ToHost(const float* data, int64_t count) override {
    return absl::MakeConstSpan(data, count);
  }

 private:
  class CpuWeights;

  void MultiplyPacked(absl::Span<const Product> products, const float* x, int32_t rows);
  void MultiplyPackedGroups(const Product& product, int32_t rows, int64_t begin, int64_t end);
  void MultiplyFloat(const Product& product, const float* x, int32_t rows);
  float* KvSlot(int32_t block, int32_t layer, int value, int32_t kv_head, int32_t slot);

  const CpuBackendOptions options_;
  const RowOps& ops_;
  const PackedProduct packed_product_;
  ThreadPool pool_;
  std::unique_ptr<Buffer> kv_;
  KvShape kv_shape_;
  QuantizedRows quantized_;
  std::vector<std::vector<float>> scratch_;  // one for each thread
};

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_CPU_BACKEND_H_
