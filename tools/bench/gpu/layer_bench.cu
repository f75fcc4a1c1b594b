// Measures fused layers alone, of Llama 3.1 8B's shapes, one after the other from more memory than any cache holds:
//
//   bazel run --config=opt --config=cuda //tools/bench/gpu:layer_bench [-- ROWS...]
//
// One JSON object a line: microseconds of a layer without its attention, and the rate at which its weights were read.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/cuda/fused_layer.h"
#include "kernels/cuda/row_kernels.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int32_t kEmbedding = 4096;
constexpr int32_t kFeedForward = 14336;
constexpr int32_t kInputs = 6144;
constexpr int64_t kLayerElements = int64_t{kEmbedding} * (kEmbedding + 3 * kFeedForward + kInputs);
constexpr int kLayers = 16;
constexpr int kRounds = 9;

void Must(int error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(static_cast<cudaError_t>(error)));
  std::exit(1);
}

template <typename T>
T* Allocate(int64_t count) {
  void* memory = nullptr;
  Must(cudaMalloc(&memory, static_cast<size_t>(count) * sizeof(T)), "memory");
  Must(cudaMemset(memory, 0, static_cast<size_t>(count) * sizeof(T)), "memory");
  return static_cast<T*>(memory);
}

uint16_t* Noise(int64_t count, cudaStream_t stream) {
  uint16_t* memory = Allocate<uint16_t>(count);
  Must(FillWithNoise(count, memory, stream), "noise");
  return memory;
}

int Run(const std::vector<int32_t>& all_rows) {
  cudaStream_t stream;
  cudaEvent_t begin, end;
  Must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  Must(cudaEventCreate(&begin), "event");
  Must(cudaEventCreate(&end), "event");
  const uint16_t* weights = Noise(kLayerElements * kLayers, stream);
  FusedLayer layer;
  layer.feed_forward_norm = Allocate<float>(kEmbedding);
  layer.next_norm = Allocate<float>(kEmbedding);
  layer.epsilon = 1e-5f;
  layer.attention = Noise(int64_t{kFusedLayerRows} * kEmbedding, stream);
  layer.attention_stride = kEmbedding;
  layer.hidden = Noise(int64_t{kFusedLayerRows} * kEmbedding, stream);
  layer.normed = Allocate<uint16_t>(int64_t{kFusedLayerRows} * kEmbedding);
  layer.gated_stride = 2 * kFeedForward;
  layer.gated = Allocate<uint16_t>(int64_t{kFusedLayerRows} * layer.gated_stride);
  layer.inputs = Allocate<uint16_t>(int64_t{kFusedLayerRows} * kInputs);
  layer.inputs_stride = kInputs;
  layer.tickets = Allocate<uint32_t>(kFusedLayerTickets);
  const auto matrix = [&](int layer_index, int64_t from, int32_t size, int32_t columns) {
    return FusedMatrix{weights + layer_index * kLayerElements + from, size, columns};
  };
  for (const int32_t rows : all_rows) {
    layer.rows = rows;
    std::vector<float> milliseconds;
    for (int round = -1; round < kRounds; ++round) {
      Must(cudaEventRecord(begin, stream), "event");
      for (int i = 0; i < kLayers; ++i) {
        int64_t from = 0;
        layer.attention_output = matrix(i, from, kEmbedding, kEmbedding);
        from += int64_t{kEmbedding} * kEmbedding;
        layer.gate_up = matrix(i, from, 2 * kFeedForward, kEmbedding);
        from += int64_t{2} * kFeedForward * kEmbedding;
        layer.down = matrix(i, from, kEmbedding, kFeedForward);
        from += int64_t{kEmbedding} * kFeedForward;
        layer.next_inputs = matrix(i, from, kInputs, kEmbedding);
        if (layer.partials == nullptr) layer.partials = Allocate<float>(FusedLayerPartialFloats(layer));
        if (!ServesFusedLayer(layer)) {
          std::fprintf(stderr, "this device is not served\n");
          return 1;
        }
        Must(LaunchFusedLayer(layer, stream), "layer");
      }
      Must(cudaEventRecord(end, stream), "event");
      Must(cudaEventSynchronize(end), "layers");
      float elapsed = 0;
      Must(cudaEventElapsedTime(&elapsed, begin, end), "time");
      if (round >= 0) milliseconds.push_back(elapsed / kLayers);
    }
    std::sort(milliseconds.begin(), milliseconds.end());
    const double us = milliseconds[milliseconds.size() / 2] * 1e3;
    std::printf("{\"bench\":\"fused_layer\",\"rows\":%d,\"us\":%.2f,\"least_us\":%.2f,\"tb_per_s\":%.3f}\n", rows, us,
                milliseconds[0] * 1e3, 2.0 * static_cast<double>(kLayerElements) / us / 1e6);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace fermata::kernels::cuda

int main(int argc, char** argv) {
  std::vector<int32_t> all_rows;
  for (int i = 1; i < argc; ++i) all_rows.push_back(std::atoi(argv[i]));
  if (all_rows.empty()) all_rows = {1, 8, 16, 32, 64, 96, 128};
  return fermata::kernels::cuda::Run(all_rows);
}
