// Goal: a fused layer's products are shared out so that every output and every column is somebody's, and evenly where
// that is possible.

#include "kernels/cuda/layer_plan.h"

#include <cstdint>
#include <random>

#include "gtest/gtest.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int32_t kProcessors = 132;
constexpr int32_t kMaxTiles = 1000;

int32_t TileOutputs(const LayerProduct& product, const LayerShares& shares) {
  return shares.boxes * shares.box_rows / (product.gated ? 2 : 1);
}

TEST(LayerPlan, SharesCoverAnyProductAndNoneIsEmpty) {
  std::mt19937 random(5);
  for (int i = 0; i < 3000; ++i) {
    LayerProduct product;
    product.size = 8 * static_cast<int32_t>(1 + random() % (i % 2 == 0 ? 40 : 5000));
    product.columns = 8 * static_cast<int32_t>(1 + random() % (i % 3 == 0 ? 40 : 4000));
    product.gated = random() % 3 == 0;
    product.added_later = !product.gated && random() % 2 == 0;
    const int32_t rows = 1 << random() % 8;
    const int32_t processors = static_cast<int32_t>(1 + random() % 200);
    const LayerShares shares = ShareOut(product, rows, processors, kMaxTiles);
    SCOPED_TRACE(testing::Message() << product.size << " x " << product.columns << " gated " << product.gated
                                    << " later " << product.added_later << " rows " << rows << " on " << processors);
    const int32_t outputs = TileOutputs(product, shares);
    EXPECT_GE(shares.tiles * outputs, product.size);
    EXPECT_LT((shares.tiles - 1) * outputs, product.size);
    EXPECT_GE(shares.steps * kLayerStep, product.columns);
    EXPECT_LT((shares.steps - 1) * kLayerStep, product.columns);
    EXPECT_LE(shares.pieces, shares.steps);
    EXPECT_TRUE(shares.pieces == 1 || shares.pieces == 2 || shares.pieces == 4 || shares.pieces == 8);
    EXPECT_EQ(shares.box_rows % 8, 0);
    EXPECT_LE(shares.box_rows, kLayerBoxOutputs);
    EXPECT_LE(shares.boxes, kLayerBoxes);
    if (product.gated) {
      EXPECT_EQ(shares.boxes % 2, 0);
      EXPECT_EQ(shares.pieces, 1);
    }
    if (!product.added_later) {
      EXPECT_TRUE(shares.pieces == 1 || shares.tiles <= kMaxTiles);
    }
  }
}

// Llama 3.1 8B's products on an H100 or H200: each processor has one share at most, and nearly all have one.
TEST(LayerPlan, ALargeModelsProductsFillTheDevice) {
  const LayerProduct products[] = {
      {4096, 4096, false, true}, {14336, 4096, true, false}, {4096, 14336, false, true}, {6144, 4096, false, false}};
  for (const int32_t rows : {16, 32, 64, 128}) {
    for (const LayerProduct& product : products) {
      const LayerShares shares = ShareOut(product, rows, kProcessors, kMaxTiles);
      SCOPED_TRACE(testing::Message() << product.size << " x " << product.columns << ", rows " << rows);
      EXPECT_LE(shares.tiles * shares.pieces, kProcessors);
      EXPECT_GE(shares.tiles * shares.pieces, kProcessors * 9 / 10);
    }
  }
}

}  // namespace
}  // namespace fermata::kernels::cuda
