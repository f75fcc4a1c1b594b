// Weights of any type to the device, through pinned memory.

#ifndef FERMATA_KERNELS_CUDA_WEIGHT_UPLOAD_H_
#define FERMATA_KERNELS_CUDA_WEIGHT_UPLOAD_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/weight_type.h"

// As the CUDA runtime declares them, so that plain C++ need not include its headers.
struct CUevent_st;
struct CUstream_st;

namespace fermata::kernels::cuda {

// Two pinned buffers in turn: one is filled while the other travels. Owns them and their events.
class WeightUpload {
 public:
  explicit WeightUpload(CUstream_st* stream) : stream_(stream) {}
  ~WeightUpload();
  WeightUpload(const WeightUpload&) = delete;
  WeightUpload& operator=(const WeightUpload&) = delete;

  // Bytes of the elements of `view` on the device: float32 for a vector, else bfloat16.
  static int64_t BytesOf(const WeightView& view);

  // Writes them to device memory at `to`, rounded to nearest. `view` may go when this returns. RESOURCE_EXHAUSTED if
  // there is no memory for the buffers.
  absl::Status Upload(const WeightView& view, uint8_t* to);

 private:
  absl::Status Prepare();
  void FillRows(const WeightView& view, int64_t first, int64_t count, uint8_t* to);

  CUstream_st* stream_;
  CudaMemory staging_[2];
  CUevent_st* travelled_[2] = {};
  int next_ = 0;
  std::vector<float> row_;
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_WEIGHT_UPLOAD_H_
