// Weights and buffers of the CUDA back end: memory of the device that knows its shape.

#ifndef FERMATA_KERNELS_CUDA_CUDA_OBJECTS_H_
#define FERMATA_KERNELS_CUDA_CUDA_OBJECTS_H_

#include <cstdint>
#include <utility>

#include "kernels/backend.h"
#include "kernels/cuda/device_memory.h"

namespace fermata::kernels::cuda {

// A matrix in bfloat16, or a vector (one row) in float32.
class CudaWeights : public Weights {
 public:
  CudaWeights(const WeightView& view, CudaMemory memory)
      : Weights(view.rows, view.columns), memory_(std::move(memory)) {}

  static const uint16_t* Matrix(const Weights& weights) {
    return static_cast<const CudaWeights&>(weights).memory_.as<const uint16_t>();
  }
  static const float* Vector(const Weights& weights) {
    return static_cast<const CudaWeights&>(weights).memory_.as<const float>();
  }

 private:
  CudaMemory memory_;
};

// Of bfloat16, or of float32 if `floats`.
class CudaBuffer : public Buffer {
 public:
  CudaBuffer(CudaMemory memory, bool floats) : memory_(std::move(memory)), floats_(floats) {}

  bool floats() const { return floats_; }
  void* data() const { return memory_.as<void>(); }

  static const CudaBuffer& From(const Buffer& buffer) { return static_cast<const CudaBuffer&>(buffer); }

 private:
  CudaMemory memory_;
  const bool floats_;
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_CUDA_OBJECTS_H_
