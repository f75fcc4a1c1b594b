#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <limits>

#include "tests/kernels/cuda/device_buffer.h"

namespace fermata::kernels::cuda {
namespace {

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::abort();
}

}  // namespace

bool HasDevice() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

DeviceBuffer::DeviceBuffer(size_t size)
    : DeviceBuffer(std::vector<float>(size, std::numeric_limits<float>::quiet_NaN())) {}

DeviceBuffer::DeviceBuffer(const std::vector<float>& values) : size_(values.size()) {
  Check(cudaMalloc(&data_, size_ * sizeof(float)), "cudaMalloc");
  Check(cudaMemcpy(data_, values.data(), size_ * sizeof(float), cudaMemcpyHostToDevice), "copy to device");
}

DeviceBuffer::~DeviceBuffer() { cudaFree(data_); }

std::vector<float> DeviceBuffer::ToHost() const {
  Check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  std::vector<float> values(size_);
  Check(cudaMemcpy(values.data(), data_, size_ * sizeof(float), cudaMemcpyDeviceToHost), "copy to host");
  return values;
}

}  // namespace fermata::kernels::cuda
