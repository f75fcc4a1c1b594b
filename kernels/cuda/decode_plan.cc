#include "kernels/cuda/decode_plan.h"

#include <algorithm>
#include <limits>

#include "kernels/cuda/divide_up.h"

namespace fermata::kernels::cuda {
namespace {

// Fewer tiles cost more in putting results together than they gain.
constexpr int32_t kWorthwhileTiles = 8;

// The size of shares that begin with a head each; 0: there would be too many.
int32_t SizeOfSeparate(const std::vector<DecodeUnit>& units, int32_t kv_head_count, const DecodeLimits& limits) {
  int32_t longest = 0;
  for (const DecodeUnit& unit : units) longest = std::max(longest, unit.tiles);
  const int32_t size = DivideUp(longest, DivideUp(longest, kWorthwhileTiles));
  int64_t count = 0;
  for (const DecodeUnit& unit : units) count += int64_t{kv_head_count} * DivideUp(unit.tiles, size);
  return count <= MaxDecodeShares(limits) ? size : 0;
}

void AddShares(int32_t kv_head_count, int32_t size, int32_t total, DecodePlan* plan) {
  const int32_t count = DivideUp(total, size);
  int32_t index = 0;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t place = i * size;
    while (place >= plan->units[static_cast<size_t>(index) + 1].first) ++index;
    const DecodeUnit& unit = plan->units[static_cast<size_t>(index)];
    const int32_t head = std::min((place - unit.first) / unit.stride, kv_head_count - 1);
    plan->shares.push_back({unit.segment, unit.tiles, unit.stride, unit.first, index, head, place, size, count});
  }
}

}  // namespace

int32_t MaxDecodeShares(const DecodeLimits& limits) { return 2 * limits.places; }

bool IsDecode(const KvSegment& segment, int32_t group, const DecodeLimits& limits) {
  return segment.row_count * group <= limits.queries;
}

void PlanDecode(const std::vector<KvSegment>& segments, int32_t group, int32_t kv_head_count,
                const DecodeLimits& limits, DecodePlan* plan) {
  plan->units.clear();
  plan->shares.clear();
  int64_t tiles = 0;
  for (const KvSegment& segment : segments) {
    if (!IsDecode(segment, group, limits)) continue;
    const int32_t count = DivideUp(segment.first_position + segment.row_count, limits.tile);
    plan->units.push_back({segment, count, count, 0, 0});
    tiles += int64_t{kv_head_count} * count;
  }
  if (plan->units.empty()) return;
  const auto fill = static_cast<int32_t>(DivideUp(tiles, limits.places));
  const int32_t separate = fill < kWorthwhileTiles ? SizeOfSeparate(plan->units, kv_head_count, limits) : 0;
  int32_t place = 0;
  for (DecodeUnit& unit : plan->units) {
    if (separate > 0) unit.stride = DivideUp(unit.tiles, separate) * separate;
    unit.first = place;
    place += unit.stride * kv_head_count;
  }
  DecodeUnit behind;
  behind.first = std::numeric_limits<int32_t>::max();
  plan->units.push_back(behind);
  AddShares(kv_head_count, separate > 0 ? separate : fill, place, plan);
}

}  // namespace fermata::kernels::cuda
