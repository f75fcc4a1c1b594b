// Small pieces of host memory to the device, many times a step, without waiting and without allocating.

#ifndef FERMATA_KERNELS_CUDA_STAGED_UPLOAD_H_
#define FERMATA_KERNELS_CUDA_STAGED_UPLOAD_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device_memory.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

// A pinned buffer and its twin on the device, filled from the front and emptied as a whole.
class StagedUpload {
 public:
  static absl::StatusOr<StagedUpload> Create(int64_t bytes, CUstream_st* stream);

  // Where `bytes` of `data` will be on the device for whatever is asked of the stream after this, until Reset(). `data`
  // may go at once. RESOURCE_EXHAUSTED if there is no room left.
  absl::StatusOr<const void*> Put(const void* data, int64_t bytes);

  // Where the first piece after Reset() will be.
  const void* device() const { return device_.as<void>(); }

  // Forgets all. REQUIRES: the stream has done what was asked so far.
  void Reset() { used_ = 0; }

 private:
  StagedUpload(CudaMemory host, CudaMemory device, CUstream_st* stream);

  CudaMemory host_;
  CudaMemory device_;
  CUstream_st* stream_;
  int64_t used_ = 0;
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_STAGED_UPLOAD_H_
