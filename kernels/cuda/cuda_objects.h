// Weights and buffers of the CUDA back end: memory of the device that knows its shape.

#ifndef FERMATA_KERNELS_CUDA_CUDA_OBJECTS_H_
#define FERMATA_KERNELS_CUDA_CUDA_OBJECTS_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "kernels/backend.h"
#include "kernels/cuda/device_memory.h"

namespace fermata::kernels::cuda {

// A matrix in bfloat16, or a vector (one row) in float32: at `data` in memory that others may share.
class CudaWeights : public Weights {
 public:
  CudaWeights(const WeightView& view, std::shared_ptr<const CudaMemory> memory, const void* data)
      : Weights(view.rows, view.columns), memory_(std::move(memory)), data_(data) {}

  static const uint16_t* Matrix(const Weights& weights) {
    return static_cast<const uint16_t*>(static_cast<const CudaWeights&>(weights).data_);
  }
  static const float* Vector(const Weights& weights) {
    return static_cast<const float*>(static_cast<const CudaWeights&>(weights).data_);
  }

 private:
  std::shared_ptr<const CudaMemory> memory_;
  const void* data_;
};

// Of bfloat16, or of float32 if `floats`. Made together with others, its rows of `width` lie `stride` apart.
class CudaBuffer : public Buffer {
 public:
  CudaBuffer(CudaMemory memory, bool floats)
      : memory_(std::make_shared<CudaMemory>(std::move(memory))), data_(memory_->as<void>()), floats_(floats) {}
  CudaBuffer(std::shared_ptr<const CudaMemory> memory, uint16_t* data, int64_t width, int64_t stride)
      : memory_(std::move(memory)), data_(data), floats_(false), width_(width), stride_(stride) {}

  bool floats() const { return floats_; }
  void* data() const { return data_; }

  // Elements from one row of `size` to the next.
  int64_t Stride(int64_t size) const { return stride_ > 0 ? stride_ : size; }
  int64_t Width(int64_t size) const { return width_ > 0 ? width_ : size; }

  static const CudaBuffer& From(const Buffer& buffer) { return static_cast<const CudaBuffer&>(buffer); }

 private:
  std::shared_ptr<const CudaMemory> memory_;
  void* data_;
  const bool floats_;
  const int64_t width_ = 0;   // 0: rows follow each other
  const int64_t stride_ = 0;  // likewise
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_CUDA_OBJECTS_H_
