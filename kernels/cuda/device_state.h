// What the operations of the CUDA back end work with: the stream, the tables of a step, memory that they share.

#ifndef FERMATA_KERNELS_CUDA_DEVICE_STATE_H_
#define FERMATA_KERNELS_CUDA_DEVICE_STATE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/decode_plan.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/hopper_attention.h"
#include "kernels/cuda/hopper_decode.h"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/kv_transfer.h"
#include "kernels/cuda/matrix_product.h"
#include "kernels/cuda/recorded_step.h"
#include "kernels/cuda/staged_upload.h"
#include "kernels/cuda/step_watch.h"
#include "kernels/cuda/weight_upload.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

struct DeviceOptions {
  bool batch_invariant = false;
  bool hopper_attention = true;    // attention by warpgroups' products and bulk copies, where device and shape allow it
  bool warpgroup_products = true;  // products by WarpgroupProduct() and GatedProduct(), where those are faster
  bool fused_layers = true;        // all between two attentions in one kernel, for rows with which that is faster
  int32_t pieces_per_place = 1;  // of attention's work for each place on the device; more pieces cost more in being put
                                 // together than they gain
  bool record_steps = true;      // steps of decode are recorded where Record() is asked for
  bool time_steps = false;       // the device tells how long a step took
};

// The first error is kept until it is taken. One thread at a time.
class DeviceState {
 public:
  explicit DeviceState(const DeviceOptions& device_options) : options(device_options) {}
  ~DeviceState();
  DeviceState(const DeviceState&) = delete;
  DeviceState& operator=(const DeviceState&) = delete;

  // Of device 0. UNAVAILABLE if there is none that this build's kernels run on.
  absl::Status Start();

  void Check(const absl::Status& result) {
    if (status.ok()) status = result;
  }
  void Check(int error, absl::string_view what) {
    if (error != 0) Check(CudaStatus(error, what));
  }

  // A copy on the device, until the step is over; null after an error.
  template <typename T>
  const T* Put(const T* data, size_t count) {
    if (count == 0) return nullptr;
    const absl::StatusOr<const void*> place = tables->Put(data, static_cast<int64_t>(count * sizeof(T)));
    Check(place.status());
    return place.ok() ? static_cast<const T*>(*place) : nullptr;
  }

  absl::Status AllocateKv(const KvShape& shape);
  KvLayer Layer(int32_t layer) const;

  // Waits for the step before, and tells the device where the rows of this one are.
  void BeginStep(absl::Span<const Segment> step_segments);

  // Shares out the step's attention, once for each step; `awaited`: whether a kernel that waits for the one in front of
  // it comes before the attention does.
  void PlanStep(int32_t head_count, bool awaited);

  // Backend::Record() and Backend::Replay().
  absl::Status Record(int32_t step_rows, absl::FunctionRef<void()> ask);
  bool Replay(absl::Span<const Segment> step_segments, absl::Span<const int32_t> tokens,
              absl::Span<const int32_t> output_rows);

  // Whether steps of so many rows have their layers fused, where the kernel serves them: as Record() has found to be
  // faster for as many, or a few more.
  bool FusesLayers(int32_t step_rows) const;

  // Makes `memory` hold so many bytes, which are zeros if it had to grow.
  void Grow(int64_t bytes, CudaMemory* memory);

  // Whether many queries go to HopperAttention().
  bool UsesHopper() const { return kv_map.tensor.usable && options.hopper_attention && !options.batch_invariant; }

  // Whether few go to HopperDecode().
  bool SharesDecode(int32_t head_count) const {
    return decode_map.tensor.usable && options.hopper_attention && !options.batch_invariant &&
           head_count / kv_shape.kv_head_count <= kHopperDecodeQueries;
  }

  // Whether HopperDecode() turns and stores all rows of this step on its way. REQUIRES: PlanStep().
  bool StoresInDecode(int32_t head_count) const {
    return SharesDecode(head_count) && (recording != nullptr || (decode_plan.units.size() == segments.size() + 1 &&
                                                                 row_count == static_cast<int32_t>(segments.size())));
  }

  // Blocks of threads of decode attention that are on the device together.
  int32_t places() const { return processors * kHopperDecodeBlocks; }

  const DeviceOptions options;
  CUstream_st* stream = nullptr;
  int32_t processors = 0;
  absl::Status status;
  std::unique_ptr<WeightUpload> upload;
  std::unique_ptr<MatrixProduct> products;
  std::unique_ptr<StagedUpload> tables;
  std::unique_ptr<StepWatch> watch;  // null unless steps are timed
  CudaMemory frequencies;
  CudaMemory kv;
  KvShape kv_shape;
  KvMap kv_map;
  DecodeMap decode_map;
  std::unique_ptr<KvTransfer> transfer;
  CudaMemory partials;
  CudaMemory tickets;          // of attention's pieces; zeros between kernels
  CudaMemory decode_partials;  // of HopperDecode()
  CudaMemory decode_tickets;   // likewise
  CudaMemory layer_partials;   // of fused layers
  CudaMemory layer_tickets;    // likewise
  CudaMemory drawing;          // pieces of logits
  CudaMemory host_result;      // pinned
  CudaMemory host_tokens;      // pinned

  // Of the step; on the device, of the one that is being recorded.
  std::vector<KvSegment> segments;
  std::vector<KvRow> rows;
  std::vector<int32_t> blocks;
  int32_t row_count = 0;
  const KvRow* device_rows = nullptr;
  const int32_t* device_blocks = nullptr;
  AttentionPlan plan;
  DecodePlan decode_plan;
  int32_t planned_head_count = 0;  // 0: not planned yet
  const AttentionItem* decode_items = nullptr;
  int32_t decode_item_count = 0;
  const AttentionItem* prefill_items = nullptr;
  const DecodeUnit* decode_units = nullptr;
  const DecodeShare* decode_shares = nullptr;  // null: there are none

  // The step that is being recorded; null: none is.
  RecordedStep* recording = nullptr;
  bool fuses_recording = true;  // whether it has fused layers, if they are served
  bool fused_a_layer = false;   // whether one was asked for since this was set

 private:
  AttentionLimits Limits(int32_t head_count) const;
  DecodeLimits SharedLimits() const { return {kHopperDecodeQueries, kHopperDecodeTile, places()}; }

  // Fills the host's tables of a step.
  void LayOut(absl::Span<const Segment> step_segments);

  // Fills the host's plan of attention.
  void Plan(int32_t head_count);

  // Records with fused layers or without, whichever takes less.
  absl::Status RecordFaster(absl::FunctionRef<void()> ask);

  // Of the step that is being recorded.
  double RecordedSeconds();

  // Memory that attention needs at most for so many pieces of the two kinds.
  void GrowForAttention(int32_t head_count, int32_t items, int32_t shares);

  std::map<int32_t, std::unique_ptr<RecordedStep>> recorded_;  // by rows
  std::map<int32_t, bool> fuses_;                              // likewise: whether its layers are fused
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_DEVICE_STATE_H_
