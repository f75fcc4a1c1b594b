#include <cuda_runtime.h>

#include "kernels/cuda/device_query.h"

namespace fermata::kernels::cuda {
namespace {

// 0 if the device does not say.
int Attribute(cudaDeviceAttr attribute) {
  int device = 0;
  int value = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  return cudaDeviceGetAttribute(&value, attribute, device) == cudaSuccess ? value : 0;
}

}  // namespace

bool IsHopper() {
  return Attribute(cudaDevAttrComputeCapabilityMajor) == 9 && Attribute(cudaDevAttrComputeCapabilityMinor) == 0;
}

int32_t Processors() { return Attribute(cudaDevAttrMultiProcessorCount); }

}  // namespace fermata::kernels::cuda
