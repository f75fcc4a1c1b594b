#include "kernels/cuda/attention_plan.h"

#include <algorithm>
#include <limits>

#include "kernels/cuda/divide_up.h"

namespace fermata::kernels::cuda {
namespace {

// A piece of fewer tiles costs more in putting results together than it gains.
constexpr int64_t kWorthwhileTiles = 4;

bool IsDecode(const KvSegment& segment, int32_t group, const AttentionLimits& limits) {
  return segment.row_count == 1 || segment.row_count * group <= limits.decode_queries;
}

int32_t Length(const KvSegment& segment) { return segment.first_position + segment.row_count; }

// How many tiles a piece should have.
int64_t TilesPerPiece(const std::vector<KvSegment>& segments, int32_t group, int32_t kv_head_count,
                      const AttentionLimits& limits) {
  int64_t tiles = 0;
  if (limits.whole) return std::numeric_limits<int32_t>::max();
  for (const KvSegment& segment : segments) {
    if (IsDecode(segment, group, limits)) tiles += DivideUp(Length(segment), limits.tile);
  }
  tiles *= kv_head_count;
  const int64_t fill = DivideUp(tiles, limits.resident_blocks);
  return std::max({DivideUp(fill, limits.pieces_per_place), std::min(kWorthwhileTiles, fill), int64_t{1}});
}

void AddDecode(const KvSegment& segment, int64_t tiles_per_piece, int32_t tile, AttentionPlan* plan) {
  const int64_t tiles = DivideUp(Length(segment), tile);
  const int64_t pieces = DivideUp(tiles, tiles_per_piece);
  for (int64_t i = 0; i < pieces; ++i) {
    AttentionItem item;
    item.segment = segment;
    item.query_count = segment.row_count;
    item.begin = static_cast<int32_t>(tiles * i / pieces * tile);
    item.end = std::min(static_cast<int32_t>(tiles * (i + 1) / pieces * tile), Length(segment));
    if (pieces > 1) {
      item.partial = plan->partial_count++;
      item.partial_count = static_cast<int32_t>(pieces);
      item.partial_index = static_cast<int32_t>(i);
    }
    plan->decode.push_back(item);
  }
}

void AddPrefill(const KvSegment& segment, int32_t tokens, AttentionPlan* plan) {
  for (int32_t first = 0; first < segment.row_count; first += tokens) {
    AttentionItem item;
    item.segment = segment;
    item.first_query = first;
    item.query_count = std::min(tokens, segment.row_count - first);
    item.end = segment.first_position + first + item.query_count;
    plan->prefill.push_back(item);
  }
}

}  // namespace

int32_t MaxDecodeItems(int32_t segments, int32_t kv_head_count, const AttentionLimits& limits) {
  if (limits.whole) return segments;
  // Pieces are as long as they must be for the device to be full pieces_per_place times, but for each segment's last.
  return segments + limits.resident_blocks * limits.pieces_per_place / kv_head_count + 1;
}

void PlanAttention(const std::vector<KvSegment>& segments, int32_t group, int32_t kv_head_count,
                   const AttentionLimits& limits, AttentionPlan* plan) {
  plan->decode.clear();
  plan->prefill.clear();
  plan->partial_count = 0;
  const int64_t tiles_per_piece = TilesPerPiece(segments, group, kv_head_count, limits);
  for (const KvSegment& segment : segments) {
    if (IsDecode(segment, group, limits)) {
      if (!limits.leave_decode) AddDecode(segment, tiles_per_piece, limits.tile, plan);
    } else {
      AddPrefill(segment, limits.prefill_queries / group, plan);
    }
  }
  std::stable_sort(plan->prefill.begin(), plan->prefill.end(),
                   [](const AttentionItem& a, const AttentionItem& b) { return a.end > b.end; });
}

}  // namespace fermata::kernels::cuda
