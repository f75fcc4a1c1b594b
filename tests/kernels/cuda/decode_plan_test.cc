// Goal: the shares of a step's decode attention cover every tile of every head exactly once, begin where they say, and
// are even.
// Method: random contexts; shares are walked as the kernel does.

#include "kernels/cuda/decode_plan.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace fermata::kernels::cuda {
namespace {

constexpr DecodeLimits kLimits = {16, 64, 264};

std::vector<KvSegment> RandomSegments(std::mt19937& random, int32_t most, int32_t longest) {
  std::vector<KvSegment> segments;
  int32_t row = 0;
  const int32_t count = 1 + static_cast<int32_t>(random() % static_cast<uint32_t>(most));
  for (int32_t i = 0; i < count; ++i) {
    const int32_t rows = random() % 4 == 0 ? 1 + static_cast<int32_t>(random() % 6) : 1;
    segments.push_back({row, rows, static_cast<int32_t>(random() % static_cast<uint32_t>(longest)), i});
    row += rows;
  }
  return segments;
}

// How often each tile of each head of each unit is taken.
std::vector<int> Walk(const DecodePlan& plan, int32_t heads) {
  std::vector<int> taken;
  std::vector<size_t> begins;
  for (size_t i = 0; i + 1 < plan.units.size(); ++i) {
    begins.push_back(taken.size());
    taken.resize(taken.size() + static_cast<size_t>(plan.units[i].tiles * heads));
  }
  for (const DecodeShare& share : plan.shares) {
    int32_t index = share.unit;
    int32_t head = share.head;
    int32_t place = share.place;
    EXPECT_EQ(share.first, plan.units[static_cast<size_t>(index)].first);
    EXPECT_EQ(share.segment.first_block, plan.units[static_cast<size_t>(index)].segment.first_block);
    while (place < share.place + share.size) {
      const DecodeUnit& unit = plan.units[static_cast<size_t>(index)];
      const int32_t first = unit.first + head * unit.stride;
      const int32_t end = std::min(unit.tiles, share.place + share.size - first);
      EXPECT_LT(place - first, end);  // a share has something to do wherever it begins
      for (int32_t tile = place - first; tile < end; ++tile) {
        ++taken[begins[static_cast<size_t>(index)] + static_cast<size_t>(head * unit.tiles + tile)];
      }
      if (++head == heads) {
        head = 0;
        ++index;
      }
      place = plan.units[static_cast<size_t>(index)].first + head * plan.units[static_cast<size_t>(index)].stride;
    }
  }
  return taken;
}

TEST(DecodePlanTest, EveryTileOfEveryHeadOnce) {
  std::mt19937 random(11);
  DecodePlan plan;
  for (int round = 0; round < 300; ++round) {
    const int32_t heads = 1 + static_cast<int32_t>(random() % 8);
    const int32_t group = 1 + static_cast<int32_t>(random() % 16);
    const std::vector<KvSegment> segments =
        RandomSegments(random, round % 2 == 0 ? 5 : 600, round % 3 == 0 ? 200 : 9000);
    PlanDecode(segments, group, heads, kLimits, &plan);
    size_t decoded = 0;
    for (const KvSegment& segment : segments) decoded += IsDecode(segment, group, kLimits) ? 1 : 0;
    ASSERT_EQ(plan.units.size(), decoded == 0 ? 0 : decoded + 1);
    EXPECT_LE(plan.shares.size(), static_cast<size_t>(MaxDecodeShares(kLimits)));
    for (const int times : Walk(plan, heads)) ASSERT_EQ(times, 1);
    for (const DecodeShare& share : plan.shares) {
      EXPECT_EQ(share.count, static_cast<int32_t>(plan.shares.size()));
      EXPECT_EQ(share.size, plan.shares[0].size);
    }
  }
}

TEST(DecodePlanTest, AShortContextAloneIsNotCut) {
  DecodePlan plan;
  PlanDecode({{0, 1, 383, 0}}, 4, 8, kLimits, &plan);
  ASSERT_EQ(plan.shares.size(), 8u);
  for (int32_t head = 0; head < 8; ++head) {
    EXPECT_EQ(plan.shares[static_cast<size_t>(head)].head, head);
    EXPECT_EQ(plan.shares[static_cast<size_t>(head)].place, head * 6);
  }
}

TEST(DecodePlanTest, MuchWorkFillsTheDeviceOnce) {
  std::vector<KvSegment> segments;
  for (int32_t i = 0; i < 256; ++i) segments.push_back({i, 1, 1229, i * 77});
  DecodePlan plan;
  PlanDecode(segments, 4, 8, kLimits, &plan);
  EXPECT_LE(plan.shares.size(), 264u);
  EXPECT_GE(plan.shares.size(), 260u);
  EXPECT_EQ(plan.shares[0].size, (256 * 8 * 20 + 263) / 264);
}

}  // namespace
}  // namespace fermata::kernels::cuda
