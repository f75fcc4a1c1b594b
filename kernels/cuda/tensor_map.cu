#include <cuda.h>
#include <cuda_runtime.h>

#include <cstring>

#include "kernels/cuda/device_query.h"
#include "kernels/cuda/tensor_map.h"

namespace fermata::kernels::cuda {
namespace {

static_assert(sizeof(CUtensorMap) == sizeof(TensorMap::bytes), "the map's size is CUDA's");

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function; null if it has none.
Encode FindEncode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found) ==
          cudaSuccess &&
      found == cudaDriverEntryPointSuccess) {
    return reinterpret_cast<Encode>(function);
  }
  cudaGetLastError();
  return nullptr;
}

}  // namespace

TensorMap MapTensor(const void* data, const TensorShape& shape) {
  TensorMap map;
  static const Encode encode = IsHopper() ? FindEncode() : nullptr;
  if (encode == nullptr) return map;
  cuuint64_t extents[4], strides[3];
  cuuint32_t box[4];
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  for (int i = 0; i < shape.dimensions; ++i) {
    extents[i] = shape.extents[i];
    box[i] = shape.box[i];
    if (i > 0) strides[i - 1] = shape.strides[i - 1];
  }
  CUtensorMap tensor;
  // Promotion to 256 bytes costs a tenth of memory's rate, where boxes follow each other along a row.
  const CUresult made =
      encode(&tensor, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(shape.dimensions),
             const_cast<void*>(data), extents, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (made != CUDA_SUCCESS) return map;
  std::memcpy(map.bytes, &tensor, sizeof(tensor));
  map.usable = true;
  return map;
}

TensorMap MapMatrix(const uint16_t* data, int64_t columns, int64_t rows, int64_t stride, int32_t box_rows) {
  return MapTensor(data, {2,
                          {static_cast<uint64_t>(columns), static_cast<uint64_t>(rows)},
                          {static_cast<uint64_t>(stride) * 2},
                          {64, static_cast<uint32_t>(box_rows)}});
}

}  // namespace fermata::kernels::cuda
