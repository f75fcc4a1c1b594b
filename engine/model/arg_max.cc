// Highway compiles this file once for each instruction set and chooses among them at run time.

#include "engine/model/arg_max.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/model/arg_max.cc"
// The order matters: foreach_target.h includes this file again for each target.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace fermata {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The largest of them; NaN if one of them is.
float LargestOrNan(const float* values, size_t size) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  float largest = -std::numeric_limits<float>::infinity();
  bool has_nan = false;
  size_t i = 0;
  if (size >= 2 * lanes) {
    // Two chains, since each operation waits for the one before it.
    auto even = hn::Set(d, largest);
    auto odd = even;
    auto nan = hn::IsNaN(even);
    for (; i + 2 * lanes <= size; i += 2 * lanes) {
      const auto a = hn::LoadU(d, values + i);
      const auto b = hn::LoadU(d, values + i + lanes);
      even = hn::Max(a, even);
      odd = hn::Max(b, odd);
      nan = hn::Or(nan, hn::Or(hn::IsNaN(a), hn::IsNaN(b)));
    }
    has_nan = !hn::AllFalse(d, nan);
    if (!has_nan) largest = hn::GetLane(hn::MaxOfLanes(d, hn::Max(even, odd)));
  }
  for (; i < size; ++i) {
    has_nan |= std::isnan(values[i]);
    largest = std::max(largest, values[i]);
  }
  return has_nan ? std::numeric_limits<float>::quiet_NaN() : largest;
}

}  // namespace HWY_NAMESPACE
}  // namespace fermata
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace fermata {
namespace {

constexpr size_t kBlock = 1024;  // searched again for its largest

HWY_EXPORT(LargestOrNan);

}  // namespace

int32_t ArgMax(absl::Span<const float> values) {
  float largest = -std::numeric_limits<float>::infinity();
  size_t best = 0;
  for (size_t begin = 0; begin < values.size(); begin += kBlock) {
    const absl::Span<const float> block = values.subspan(begin, kBlock);
    const float of_block = HWY_DYNAMIC_DISPATCH(LargestOrNan)(block.data(), block.size());
    if (std::isnan(of_block)) return -1;
    if (of_block > largest) {
      largest = of_block;
      best = begin;
    }
  }
  if (std::isinf(largest)) return -1;
  while (values[best] != largest) ++best;
  return static_cast<int32_t>(best);
}

}  // namespace fermata

#endif  // HWY_ONCE
