// Device memory for tests: floats that are copied in, poisoned and copied out.

#ifndef FERMATA_TESTS_KERNELS_CUDA_DEVICE_BUFFER_H_
#define FERMATA_TESTS_KERNELS_CUDA_DEVICE_BUFFER_H_

#include <cstddef>
#include <vector>

namespace fermata::kernels::cuda {

// True if this machine has a device that the tests can use.
bool HasDevice();

// Owns `size` floats of device memory. Aborts on a CUDA error: a test cannot go on.
class DeviceBuffer {
 public:
  // Filled with NaN, so that what a kernel forgets to write shows.
  explicit DeviceBuffer(size_t size);
  explicit DeviceBuffer(const std::vector<float>& values);
  ~DeviceBuffer();
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  float* data() { return data_; }

  // Waits for all work on the device, then copies.
  std::vector<float> ToHost() const;

 private:
  size_t size_;
  float* data_ = nullptr;
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_TESTS_KERNELS_CUDA_DEVICE_BUFFER_H_
