// Goal: the pieces of a step's attention cover every query's positions exactly once.
// Method: random segments and groups; each query's pieces are put beside each other and must be 0 .. its own position.

#include "kernels/cuda/attention_plan.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace fermata::kernels::cuda {
namespace {

std::vector<KvSegment> RandomSegments(std::mt19937& random) {
  std::vector<KvSegment> segments;
  int32_t row = 0;
  const int count = 1 + static_cast<int>(random() % 6);
  for (int i = 0; i < count; ++i) {
    const int32_t rows = random() % 2 == 0 ? 1 : 1 + static_cast<int32_t>(random() % 200);
    segments.push_back({row, rows, static_cast<int32_t>(random() % 3000), 0});
    row += rows;
  }
  return segments;
}

void ExpectCovered(const std::vector<KvSegment>& segments, int32_t group, const AttentionLimits& limits,
                   const AttentionPlan& plan) {
  std::vector<AttentionItem> items = plan.decode;
  items.insert(items.end(), plan.prefill.begin(), plan.prefill.end());
  for (const KvSegment& segment : segments) {
    for (int32_t query = 0; query < segment.row_count; ++query) {
      std::vector<std::pair<int32_t, int32_t>> pieces;
      for (const AttentionItem& item : items) {
        if (item.segment.first_row != segment.first_row || query < item.first_query ||
            query >= item.first_query + item.query_count) {
          continue;
        }
        EXPECT_EQ(item.begin % limits.tile, 0);
        pieces.push_back({item.begin, item.end});
      }
      std::sort(pieces.begin(), pieces.end());
      int32_t covered = 0;
      for (const auto& [begin, end] : pieces) {
        EXPECT_EQ(begin, covered);
        EXPECT_LT(begin, end);
        covered = end;
      }
      EXPECT_GT(covered, segment.first_position + query);
      EXPECT_LE(covered, segment.first_position + segment.row_count);
    }
  }
  for (const AttentionItem& item : plan.prefill) {
    EXPECT_LE(item.query_count * group, limits.prefill_queries);
    EXPECT_EQ(item.partial, -1);
  }
  for (const AttentionItem& item : plan.decode) {
    EXPECT_TRUE(item.query_count == 1 || item.query_count * group <= limits.decode_queries);
  }
}

TEST(AttentionPlanTest, EveryQueryMeetsEveryPositionOnce) {
  std::mt19937 random(11);
  AttentionPlan plan;
  for (int round = 0; round < 200; ++round) {
    const std::vector<KvSegment> segments = RandomSegments(random);
    const int32_t group = 1 + static_cast<int32_t>(random() % 9);
    const AttentionLimits limits = {16, 128, 64, 1 + static_cast<int32_t>(random() % 400)};
    PlanAttention(segments, group, 1 + static_cast<int32_t>(random() % 8), limits, &plan);
    ExpectCovered(segments, group, limits, plan);
  }
}

TEST(AttentionPlanTest, PiecesOfASegmentHavePlacesBesideEachOther) {
  AttentionPlan plan;
  PlanAttention({{0, 1, 4999, 0}, {1, 1, 9, 0}, {2, 1, 1000, 0}}, 4, 8, {16, 128, 64, 396}, &plan);
  int32_t places = 0;
  for (const AttentionItem& item : plan.decode) {
    if (item.partial < 0) {
      EXPECT_EQ(item.end, item.segment.first_position + 1);
      continue;
    }
    EXPECT_EQ(item.partial, places++);
    EXPECT_LT(item.partial_index, item.partial_count);
    EXPECT_GT(item.partial_count, 1);
  }
  EXPECT_EQ(places, plan.partial_count);
  EXPECT_GT(places, 10);
}

TEST(AttentionPlanTest, LongPrefillItemsComeFirst) {
  AttentionPlan plan;
  PlanAttention({{0, 100, 0, 0}, {100, 300, 700, 0}}, 4, 8, {16, 128, 64, 396}, &plan);
  EXPECT_TRUE(plan.decode.empty());
  ASSERT_EQ(plan.prefill.size(), 4u + 10u);
  EXPECT_EQ(plan.prefill.front().end, 1000);
  EXPECT_TRUE(std::is_sorted(plan.prefill.begin(), plan.prefill.end(),
                             [](const AttentionItem& a, const AttentionItem& b) { return a.end > b.end; }));
}

}  // namespace
}  // namespace fermata::kernels::cuda
