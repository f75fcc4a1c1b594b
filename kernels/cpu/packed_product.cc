#include "kernels/cpu/packed_product.h"

namespace fermata::kernels {

void MultiplyByFours(const PackedTile& tile, const PackedProduct (&tiles)[4]) {
  PackedTile part = tile;
  for (int left = tile.row_count; left > 0; left -= 4) {
    tiles[left < 4 ? left - 1 : 3](part);
    part.values += 4 * 32;
    part.blocks += 4;
    for (int r = 0; r + 4 < kRowTile; ++r) part.output[r] = part.output[r + 4];
  }
}

}  // namespace fermata::kernels
