// The CPU as a device: one class, two ways to multiply.

#ifndef FERMATA_KERNELS_CPU_CPU_BACKEND_H_
#define FERMATA_KERNELS_CPU_CPU_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/huge_pages.h"
#include "kernels/cpu/kv_type.h"
#include "kernels/cpu/quantized_rows.h"
#include "kernels/cpu/row_ops.h"
#include "kernels/cpu/thread_pool.h"

namespace fermata::kernels {

struct CpuBackendOptions {
  int threads = 1;  // at least 1

  // Exact: weights dequantised to float32, plain loops, nothing quantised. The reference that everything is held
  // against. Otherwise fast: quantised weights times 8-bit activations, vector instructions.
  bool exact = false;

  // For the fast path. Every set gives the same bits.
  InstructionSet instruction_set = InstructionSet::kPlain;

  // Of the KV cache; the exact path keeps float32 whatever this says.
  KvType kv_type = KvType::kF16;
};

// Synchronous: each operation is done when it returns. One thread at a time may use it.
class CpuBackend : public Backend {
 public:
  // REQUIRES: options.instruction_set is supported here.
  explicit CpuBackend(const CpuBackendOptions& options);

  // Fast, with the best instructions that this machine has.
  static CpuBackendOptions BestOptions(int threads);

  // What computes, for a log: kernels, threads, and the processors that they are bound to.
  std::string Describe() const;

  absl::StatusOr<std::unique_ptr<Weights>> Prepare(const WeightView& view) override;
  bool batch_invariant() const override { return true; }
  int32_t kv_element_bytes() const override { return BytesOf(kv_type()); }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t element_count) override;
  absl::StatusOr<std::unique_ptr<Buffer>> AllocateFloats(int64_t element_count) override {
    return Allocate(element_count);
  }
  absl::Status SetRope(absl::Span<const float> frequencies) override;
  absl::Status AllocateKv(const KvShape& shape) override;
  int64_t kv_block_bytes() const override;
  absl::Status CopyKvToHost(absl::Span<const KvBlockCopy> copies) override;
  absl::Status CopyKvFromHost(absl::Span<const KvBlockCopy> copies) override;
  void BeginStep(absl::Span<const Segment> segments) override;
  void Embed(const Weights& table, absl::Span<const int32_t> tokens, Buffer& output) override;
  void RmsNorm(const Weights& weight, float epsilon, const Buffer& x, int32_t rows, Buffer& output) override;
  void AddRmsNorm(const Weights& weight, float epsilon, const Buffer& delta, int32_t rows, Buffer& x,
                  Buffer& output) override;
  void MatMul(absl::Span<const Product> products, const Buffer& x, int32_t rows) override;
  void RopeAndStore(int32_t layer, int32_t head_count, Buffer& q, Buffer& k, const Buffer& v) override;
  void Attention(int32_t layer, int32_t head_count, const Buffer& q, Buffer& output) override;
  void SwiGlu(const Buffer& up, int32_t rows, int32_t size, Buffer& gate) override;
  void GatedMatMul(const Product& gate, const Product& up, const Buffer& x, int32_t rows) override;
  void AddBias(const Weights& bias, int32_t rows, Buffer& x) override;
  void Add(const Buffer& y, int64_t count, Buffer& x) override;
  void GatherRows(const Buffer& x, absl::Span<const int32_t> indices, int32_t size, Buffer& output) override;
  absl::Status Synchronize() override { return absl::OkStatus(); }
  absl::StatusOr<absl::Span<const float>> ToHost(const Buffer& floats, int64_t count) override;

  // The elements of a buffer of a CpuBackend: float32. Not to be written between an operation that wrote it and
  // MatMul(), which may go by what the operation left. Of a GatedMatMul() of quantised weights they are undefined: its
  // rows exist in 8 bits alone.
  static float* Data(Buffer& buffer);
  static const float* Data(const Buffer& buffer);

 private:
  class CpuWeights;

  // The elements of a buffer that an operation writes: what was quantised of it is no longer.
  float* Overwrite(Buffer& buffer);

  // Whether rows of so many columns are ever multiplied by packed weights. If so, makes room in quantized_ for those of
  // a buffer: the caller quantises them while they are in the cache, and the next MultiplyPacked() finds it done.
  bool BeginQuantized(const Buffer& of, int32_t rows, int64_t columns);

  struct Range {
    int64_t begin;
    int64_t end;
  };

  // The rows of x in 8 bits: as an operation left them, or made now.
  QuantizedRows& Quantized(const Buffer& x, int32_t rows, int64_t columns);

  // Whether GatedMatMul() can leave its rows in 8 bits: whatever may read them reads those.
  bool KeepsGated(const Product& gate, const Product& up) const;

  void MultiplyPacked(absl::Span<const Product> products, const Buffer& x, int32_t rows);

  // What `matrix` makes of x, for the outputs of `groups` and for `rows`, each of which comes `stride` floats after the
  // one before it.
  void MultiplyPackedGroups(const PackedMatrix& matrix, const QuantizedRows& x, Range groups, Range rows, float* output,
                            int64_t stride) const;

  // The same of gate and up, SwiGlu of the two, and that in 8 bits in gated_; groups in pairs, a block of activations.
  void MultiplyGated(const PackedMatrix& gate, const PackedMatrix& up, const QuantizedRows& x, Range pairs, Range rows);
  void MultiplyFloat(const Product& product, const float* x, int32_t rows);

  // Where the cache keeps a row of the step.
  struct Place {
    int32_t block;
    int32_t slot;
  };

  KvType kv_type() const { return options_.exact ? KvType::kF32 : options_.kv_type; }

  // A layer's part of a block of the cache; see KvLayer.
  std::byte* LayerOf(int32_t block, int32_t layer);
  void Store(const Place& place, int32_t layer, const float* key, const float* value, float* scratch);

  const CpuBackendOptions options_;
  const RowOps& ops_;
  const PackedProduct packed_product_;
  ThreadPool pool_;
  HugeArena packed_;  // packed weights
  std::unique_ptr<HugePages> kv_;
  KvShape kv_shape_;
  std::vector<float> frequencies_;      // of rope
  absl::Span<const Segment> segments_;  // of the step
  std::vector<Turn> turns_;             // [row][head size / 2]
  std::vector<Place> places_;           // [row]
  QuantizedRows quantized_;
  const Buffer* quantized_of_ = nullptr;  // whose rows they are; null: nobody's
  int32_t quantized_rows_ = 0;
  QuantizedRows gated_;               // what the last GatedMatMul() left
  const Buffer* gated_of_ = nullptr;  // whose rows they are, as above
  int32_t gated_rows_ = 0;
  std::set<int64_t> packed_columns_;  // of all packed matrices
  std::set<int64_t> float_columns_;   // of all others
  CpuAttention attention_;
  std::vector<std::vector<float>> scratch_;  // one for each thread
};

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_CPU_BACKEND_H_
