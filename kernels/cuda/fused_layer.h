// All that a transformer computes between one layer's attention and the next one's, for up to some dozens of rows, in
// one kernel that stays on the device: the weights of what comes next are on their way while blocks of threads wait for
// each other.

#ifndef FERMATA_KERNELS_CUDA_FUSED_LAYER_H_
#define FERMATA_KERNELS_CUDA_FUSED_LAYER_H_

#include <cstdint>

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

inline constexpr int32_t kFusedLayerRows = 128;
inline constexpr int32_t kFusedLayerTickets = 1024;

// bfloat16, [size][columns].
struct FusedMatrix {
  const uint16_t* weights = nullptr;
  int32_t size = 0;  // outputs
  int32_t columns = 0;
};

// All pointers are device memory, 16-byte aligned; sizes, columns and strides (elements from one row to the next) are
// multiples of 8. Activations are bfloat16.
struct FusedLayer {
  int32_t rows = 0;  // 1 to kFusedLayerRows

  FusedMatrix attention_output;  // [embedding][queries]
  FusedMatrix gate_up;           // [2 * feed forward][embedding], the gates first
  FusedMatrix down;              // [embedding][feed forward]
  FusedMatrix next_inputs;  // [outputs][embedding], of the next layer's attention; no weights: this is the last one
  const float* feed_forward_norm = nullptr;  // [embedding]
  const float* next_norm = nullptr;          // [embedding]; null: this is the last layer
  float epsilon = 0;

  const uint16_t* attention = nullptr;  // [rows][queries], what attention gave
  int64_t attention_stride = 0;
  uint16_t* hidden = nullptr;  // [rows][embedding], rows following each other: what all layers add to
  uint16_t* normed = nullptr;  // the same shape; for what is between
  uint16_t* gated = nullptr;   // [rows][feed forward]; likewise
  int64_t gated_stride = 0;
  uint16_t* inputs = nullptr;  // [rows][next_inputs.size]: the result, if there is a next layer
  int64_t inputs_stride = 0;

  float* partials = nullptr;    // FusedLayerPartialFloats()
  uint32_t* tickets = nullptr;  // kFusedLayerTickets; zeros before and after
};

// Room for sums that are put together later.
int64_t FusedLayerPartialFloats(const FusedLayer& layer);

// Whether the device that is set, and these shapes, are served.
bool ServesFusedLayer(const FusedLayer& layer);

//   hidden += attention_output * attention
//   gated = silu(gate * n) * (up * n), where n = RmsNorm(hidden), and gate * n and up * n are rounded to bfloat16
//   hidden += down * gated
//   inputs = next_inputs * RmsNorm(hidden)
//
// with sums in float32, in an order that depends on the shapes and the device alone. Asynchronous on `stream`; returns
// the launch's cudaError_t (0: launched). REQUIRES: ServesFusedLayer(), and nothing on another stream that never ends
// and keeps a processor from it: all blocks of threads must be on the device at once.
int LaunchFusedLayer(const FusedLayer& layer, CUstream_st* stream);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_FUSED_LAYER_H_
