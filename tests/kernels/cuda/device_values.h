// Values on the device and back, for checks of single kernels. All wait, and abort on an error of the device.

#ifndef FERMATA_TESTS_KERNELS_CUDA_DEVICE_VALUES_H_
#define FERMATA_TESTS_KERNELS_CUDA_DEVICE_VALUES_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "glog/logging.h"
#include "kernels/cuda/device_memory.h"

namespace fermata::kernels::cuda {

inline void Must(int error, const std::string& what) {
  CHECK(error == cudaSuccess) << what << ": " << cudaGetErrorString(static_cast<cudaError_t>(error));
}

inline float Widen(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

// To nearest; not of NaN.
inline uint16_t Narrow(float value) {
  uint32_t word;
  std::memcpy(&word, &value, sizeof(word));
  return static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

inline std::vector<uint16_t> Narrowed(const std::vector<float>& values) {
  std::vector<uint16_t> bits;
  for (const float value : values) bits.push_back(Narrow(value));
  return bits;
}

inline CudaMemory Allocate(int64_t bytes) {
  absl::StatusOr<CudaMemory> memory = CudaMemory::Allocate(MemoryKind::kDevice, bytes);
  CHECK(memory.ok()) << memory.status();
  return *std::move(memory);
}

template <typename T>
CudaMemory Upload(const std::vector<T>& values) {
  CudaMemory memory = Allocate(static_cast<int64_t>(values.size() * sizeof(T)));
  Must(cudaMemcpy(memory.as<void>(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
  return memory;
}

template <typename T>
std::vector<T> Download(const CudaMemory& memory) {
  std::vector<T> values(static_cast<size_t>(memory.bytes()) / sizeof(T));
  Must(cudaMemcpy(values.data(), memory.as<void>(), values.size() * sizeof(T), cudaMemcpyDeviceToHost), "download");
  return values;
}

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_TESTS_KERNELS_CUDA_DEVICE_VALUES_H_
