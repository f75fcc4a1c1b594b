#include <cuda_runtime.h>

#include "kernels/cuda/step_watch.h"

namespace fermata::kernels::cuda {

StepWatch::StepWatch(CUstream_st* stream) : stream_(stream) {
  cudaEventCreate(&begin_);
  cudaEventCreate(&end_);
}

StepWatch::~StepWatch() {
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
}

void StepWatch::Begin() { cudaEventRecord(begin_, stream_); }

void StepWatch::End() { cudaEventRecord(end_, stream_); }

double StepWatch::Seconds() const {
  float milliseconds = -1;
  return cudaEventElapsedTime(&milliseconds, begin_, end_) == cudaSuccess ? milliseconds / 1e3 : -1;
}

}  // namespace fermata::kernels::cuda
