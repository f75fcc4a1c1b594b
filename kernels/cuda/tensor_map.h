// Device memory as Hopper's tensor memory accelerator sees it.

#ifndef FERMATA_KERNELS_CUDA_TENSOR_MAP_H_
#define FERMATA_KERNELS_CUDA_TENSOR_MAP_H_

#include <cstdint>
#include <cstring>

namespace fermata::kernels::cuda {

struct TensorMap {
  alignas(64) uint8_t bytes[128] = {};  // a CUtensorMap
  bool usable = false;

  // As CUDA declares it: CUtensorMap.
  template <typename Native>
  Native As() const {
    static_assert(sizeof(Native) == sizeof(bytes), "the map's size is CUDA's");
    Native native;
    std::memcpy(&native, bytes, sizeof(native));
    return native;
  }
};

// bfloat16 in up to four dimensions, innermost first, and the box that is brought at a time.
struct TensorShape {
  int32_t dimensions = 2;
  uint64_t extents[4] = {};
  uint64_t strides[3] = {};  // bytes from one to the next in each dimension but the innermost; multiples of 16
  uint32_t box[4] = {};      // the innermost at most 64
};

// Boxes lie in shared memory as warpgroup_ops.cuh says; what is outside of the tensor is zeros. `data` is device
// memory, 16-byte aligned. Not usable where the device has no accelerator, or the driver refuses.
TensorMap MapTensor(const void* data, const TensorShape& shape);

// Likewise a matrix, rows `stride` elements apart, in boxes of 64 columns.
TensorMap MapMatrix(const uint16_t* data, int64_t columns, int64_t rows, int64_t stride, int32_t box_rows);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_TENSOR_MAP_H_
