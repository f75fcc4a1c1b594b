// What the operations of the CUDA back end work with: the stream, the tables of a step, memory that they share.

#ifndef FERMATA_KERNELS_CUDA_DEVICE_STATE_H_
#define FERMATA_KERNELS_CUDA_DEVICE_STATE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/hopper_attention.h"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/kv_transfer.h"
#include "kernels/cuda/matrix_product.h"
#include "kernels/cuda/staged_upload.h"
#include "kernels/cuda/weight_upload.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

struct DeviceOptions {
  bool batch_invariant = false;
  bool hopper_attention = true;  // prefill by warpgroups' products, where device and shape allow it
  int32_t pieces_per_place = 1;  // of attention's work for each place on the device; more pieces cost more in being put
                                 // together than they gain
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

  // Shares out the step's attention, once for each step.
  void PlanStep(int32_t head_count);

  // Makes `memory` hold so many bytes, which are zeros if it had to grow.
  void Grow(int64_t bytes, CudaMemory* memory);

  // Whether many queries go to HopperAttention().
  bool UsesHopper() const { return kv_map.usable && options.hopper_attention && !options.batch_invariant; }

  const DeviceOptions options;
  CUstream_st* stream = nullptr;
  int32_t processors = 0;
  absl::Status status;
  std::unique_ptr<WeightUpload> upload;
  std::unique_ptr<MatrixProduct> products;
  std::unique_ptr<StagedUpload> tables;
  CudaMemory frequencies;
  CudaMemory kv;
  KvShape kv_shape;
  KvMap kv_map;
  std::unique_ptr<KvTransfer> transfer;
  CudaMemory partials;
  CudaMemory tickets;      // of attention's pieces; zeros between kernels
  CudaMemory drawing;      // pieces of logits
  CudaMemory host_result;  // pinned
  CudaMemory host_tokens;  // pinned

  // Of the step.
  std::vector<KvSegment> segments;
  std::vector<KvRow> rows;
  std::vector<int32_t> blocks;
  const KvRow* device_rows = nullptr;
  const int32_t* device_blocks = nullptr;
  AttentionPlan plan;
  int32_t planned_head_count = 0;  // 0: not planned yet
  const AttentionItem* decode_items = nullptr;
  const AttentionItem* prefill_items = nullptr;
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_DEVICE_STATE_H_
