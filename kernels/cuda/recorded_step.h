// A step of decode that is recorded once, as a CUDA graph, and replayed: all that differs from one time to the next is
// in tables whose places on the device stay.

#ifndef FERMATA_KERNELS_CUDA_RECORDED_STEP_H_
#define FERMATA_KERNELS_CUDA_RECORDED_STEP_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/decode_plan.h"
#include "kernels/cuda/kv_layout.h"

// As the CUDA runtime declares them, so that plain C++ need not include its headers.
struct CUstream_st;
struct CUgraphExec_st;

namespace fermata::kernels::cuda {

// Where tables lie in one piece of memory, in bytes from its beginning; those of blocks come last, since nobody knows
// how many there are.
struct StepLayout {
  StepLayout(int32_t rows, int32_t items, int32_t shares);

  int32_t rows;
  int32_t items;   // of attention, at most
  int32_t shares;  // likewise
  int64_t tokens_at;
  int64_t outputs_at;
  int64_t rows_at;
  int64_t items_at;
  int64_t units_at;
  int64_t shares_at;
  int64_t blocks_at;
};

// What a step of fewer rows, or of as many, has in its tables.
struct StepTables {
  absl::Span<const int32_t> tokens;
  absl::Span<const int32_t> outputs;
  absl::Span<const KvRow> rows;
  absl::Span<const AttentionItem> items;
  absl::Span<const DecodeUnit> units;
  absl::Span<const DecodeShare> shares;
  absl::Span<const int32_t> blocks;
};

// Owns the graph. One thread at a time.
class RecordedStep {
 public:
  // `tables` is where the tables will be on the device.
  RecordedStep(const StepLayout& layout, const void* tables);
  ~RecordedStep();
  RecordedStep(const RecordedStep&) = delete;
  RecordedStep& operator=(const RecordedStep&) = delete;

  const StepLayout& layout() const { return layout_; }

  // On the device.
  const int32_t* tokens() const { return At<int32_t>(layout_.tokens_at); }
  const int32_t* outputs() const { return At<int32_t>(layout_.outputs_at); }
  const KvRow* rows() const { return At<KvRow>(layout_.rows_at); }
  const AttentionItem* items() const { return At<AttentionItem>(layout_.items_at); }
  const DecodeUnit* units() const { return At<DecodeUnit>(layout_.units_at); }
  const DecodeShare* shares() const { return At<DecodeShare>(layout_.shares_at); }
  const int32_t* blocks() const { return At<int32_t>(layout_.blocks_at); }

  // The tables in one piece. Rows that there are too few of are filled up with ones that write nowhere. Valid until the
  // next call.
  absl::Span<const uint8_t> Fill(const StepTables& tables);

  // Keeps what `ask` asks of the stream instead of doing it, in place of what was kept.
  absl::Status Capture(CUstream_st* stream, absl::FunctionRef<void()> ask);

  // Has the stream do it. Returns the cudaError_t.
  int Launch(CUstream_st* stream) const;

  // Of the model, as its attention was asked for.
  int32_t head_count = 0;

 private:
  template <typename T>
  const T* At(int64_t offset) const {
    return reinterpret_cast<const T*>(tables_ + offset);
  }

  const StepLayout layout_;
  const uint8_t* tables_;
  std::vector<uint8_t> image_;
  CUgraphExec_st* graph_ = nullptr;
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_RECORDED_STEP_H_
