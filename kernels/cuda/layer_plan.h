// How a fused layer's products are shared out among the device's processors: plain C++, no device.

#ifndef FERMATA_KERNELS_CUDA_LAYER_PLAN_H_
#define FERMATA_KERNELS_CUDA_LAYER_PLAN_H_

#include <cstdint>

namespace fermata::kernels::cuda {

inline constexpr int32_t kLayerBoxOutputs = 64;  // that a warpgroup multiplies at a time
inline constexpr int32_t kLayerStep = 64;        // columns of a box
inline constexpr int32_t kLayerBoxes = 4;        // of a tile, at most
inline constexpr int32_t kLayerPieces = 8;       // of a tile, at most

struct LayerProduct {
  int32_t size = 0;  // outputs; gated, of gates
  int32_t columns = 0;
  bool gated = false;
  bool added_later = false;  // sums stay in pieces, for whoever adds them to something
};

// Tiles of outputs, each cut into pieces of columns; a processor takes one at a time. A tile's weights are `boxes`
// boxes of `box_rows` rows; of a gated one, gates and what passes through them, in turn.
struct LayerShares {
  int32_t steps = 0;     // of all columns
  int32_t box_rows = 0;  // a multiple of 8, at most kLayerBoxOutputs
  int32_t boxes = 0;     // gated: 2 or 4
  int32_t pieces = 0;    // 1, 2, 4 or 8, none of them empty; gated: 1
  int32_t tiles = 0;     // none of them empty
};

// The shares that take the busiest processor least time, by an estimate that was fitted to an H100. A product whose
// sums are not added later has several pieces only in up to `max_tiles` tiles.
LayerShares ShareOut(const LayerProduct& product, int32_t rows, int32_t processors, int32_t max_tiles);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_LAYER_PLAN_H_
