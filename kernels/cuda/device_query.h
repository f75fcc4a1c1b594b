// What the device that is set has.

#ifndef FERMATA_KERNELS_CUDA_DEVICE_QUERY_H_
#define FERMATA_KERNELS_CUDA_DEVICE_QUERY_H_

#include <cstdint>

namespace fermata::kernels::cuda {

// Hopper's tensor memory accelerator and products of warpgroups: compute capability 9.0.
bool IsHopper();

// Multiprocessors that this process may use; 0 if there is no device.
int32_t Processors();

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_DEVICE_QUERY_H_
