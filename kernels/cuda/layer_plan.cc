#include "kernels/cuda/layer_plan.h"

#include <algorithm>

#include "kernels/cuda/divide_up.h"

namespace fermata::kernels::cuda {
namespace {

// How long the busiest processor takes, in bytes of weights. It gets weights no faster than memory gives them to all,
// and less so where boxes leave room in their slots; with the rows from the cache it gets twice as much. Sums that are
// put together later are written one by one, and read again.
double CostOf(const LayerProduct& product, const LayerShares& shares, int32_t rows, int32_t processors) {
  constexpr double kTurn = 16 << 10;
  constexpr double kSum = 220;  // that a thread writes
  constexpr double kPiece = 10000;
  constexpr double kMeeting = 3200;  // of a tile's blocks of threads, for each row
  const double turns = DivideUp(shares.tiles * shares.pieces, processors);
  const double step_bytes = static_cast<double>(DivideUp(shares.steps, shares.pieces)) * kLayerStep * 2;
  const double weights = step_bytes * shares.boxes * shares.box_rows;
  const double others = step_bytes * rows;
  const double room = 1.0 - static_cast<double>(shares.box_rows) / kLayerBoxOutputs;
  double cost = std::max(weights * (1.0 + 0.6 * room), (weights + others) / 2) + others / 50 + kTurn;
  if (product.added_later || shares.pieces > 1) {
    cost += kSum * (shares.boxes > 2 ? 2 : 1) * rows / 2 + kPiece * shares.pieces;
    if (!product.added_later) cost += kMeeting * rows;
  }
  return turns * cost;
}

}  // namespace

LayerShares ShareOut(const LayerProduct& product, int32_t rows, int32_t processors, int32_t max_tiles) {
  LayerShares best;
  double least = 0;
  const int32_t boxes_each = product.gated ? 2 : 1;
  for (int32_t box_rows = kLayerBoxOutputs; box_rows > 0; box_rows -= 8) {
    for (int32_t boxes = boxes_each; boxes <= kLayerBoxes; boxes += boxes_each) {
      for (int32_t pieces = 1; pieces <= (product.gated ? 1 : kLayerPieces); pieces *= 2) {
        LayerShares shares;
        shares.steps = DivideUp(product.columns, kLayerStep);
        shares.box_rows = box_rows;
        shares.boxes = boxes;
        shares.pieces = pieces;
        shares.tiles = DivideUp(product.size, boxes / boxes_each * box_rows);
        if (pieces > shares.steps || (pieces > 1 && !product.added_later && shares.tiles > max_tiles)) continue;
        const double cost = CostOf(product, shares, rows, processors);
        if (best.tiles > 0 && cost >= least) continue;
        least = cost;
        best = shares;
      }
    }
  }
  return best;
}

}  // namespace fermata::kernels::cuda
