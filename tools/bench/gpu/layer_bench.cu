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
#include "tools/bench/gpu/bench_device.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int32_t kEmbedding = 4096;
constexpr int32_t kFeedForward = 14336;
constexpr int32_t kInputs = 6144;
constexpr int64_t kLayerElements = int64_t{kEmbedding} * (kEmbedding + 3 * kFeedForward + kInputs);
constexpr int kLayers = 16;
constexpr int kRounds = 9;

uint16_t* Noise(int64_t count, cudaStream_t stream) {
  uint16_t* memory = Allocate<uint16_t>(count);
  Must(FillWithNoise(count, memory, stream), "noise");
  return memory;
}

// The matrices of a layer, one behind the other.
void SetWeights(const uint16_t* weights, FusedLayer* layer) {
  const auto take = [&](int32_t size, int32_t columns) {
    const FusedMatrix matrix = {weights, size, columns};
    weights += int64_t{size} * columns;
    return matrix;
  };
  layer->attention_output = take(kEmbedding, kEmbedding);
  layer->gate_up = take(2 * kFeedForward, kEmbedding);
  layer->down = take(kEmbedding, kFeedForward);
  layer->next_inputs = take(kInputs, kEmbedding);
}

int Run(const std::vector<int32_t>& all_rows) {
  const TimedStream timed;
  const cudaStream_t stream = timed.stream();
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
  SetWeights(weights, &layer);
  layer.partials = Allocate<float>(FusedLayerPartialFloats(layer));
  for (const int32_t rows : all_rows) {
    layer.rows = rows;
    if (!ServesFusedLayer(layer)) {
      std::fprintf(stderr, "%d rows, or this device, are not served\n", rows);
      return 1;
    }
    const std::vector<float> milliseconds = timed.Measure(kRounds, [&] {
      for (int i = 0; i < kLayers; ++i) {
        SetWeights(weights + i * kLayerElements, &layer);
        Must(LaunchFusedLayer(layer, stream), "layer");
      }
    });
    const double us = milliseconds[milliseconds.size() / 2] / kLayers * 1e3;
    std::printf("{\"bench\":\"fused_layer\",\"rows\":%d,\"us\":%.2f,\"least_us\":%.2f,\"tb_per_s\":%.3f}\n", rows, us,
                milliseconds[0] / kLayers * 1e3, 2.0 * static_cast<double>(kLayerElements) / us / 1e6);
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
