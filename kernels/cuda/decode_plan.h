// Shares out a step's decode attention evenly, whatever the lengths of its contexts: plain C++, no device.

#ifndef FERMATA_KERNELS_CUDA_DECODE_PLAN_H_
#define FERMATA_KERNELS_CUDA_DECODE_PLAN_H_

#include <cstdint>
#include <vector>

#include "kernels/cuda/kv_layout.h"

namespace fermata::kernels::cuda {

// A segment's work: `tiles` for each KV head. All tiles of a step stand in one row of places: head h of the unit has
// places first + h * stride and on.
struct alignas(16) DecodeUnit {
  KvSegment segment;
  int32_t tiles = 0;
  int32_t stride = 0;  // tiles, or more: places between heads that nobody fills
  int32_t first = 0;
  int32_t unused = 0;
};

// What a block of threads takes at a time: `size` places, from those of share 0 on. Where they begin, and a copy of the
// unit there, so that it need not be looked up.
struct alignas(16) DecodeShare {
  KvSegment segment;
  int32_t tiles = 0;
  int32_t stride = 0;
  int32_t first = 0;
  int32_t unit = 0;  // its place in DecodePlan::units
  int32_t head = 0;
  int32_t place = 0;
  int32_t size = 0;   // the same in all shares
  int32_t count = 0;  // of shares; 0: this is none
};

struct DecodeLimits {
  int32_t queries = 16;  // tokens times heads of a group of a segment that is decoded, at most
  int32_t tile = 64;     // positions
  int32_t places = 1;    // blocks of threads that are on the device together
};

struct DecodePlan {
  std::vector<DecodeUnit> units;    // and one more, behind all places
  std::vector<DecodeShare> shares;  // at most MaxDecodeShares()
};

int32_t MaxDecodeShares(const DecodeLimits& limits);

// Whether attention of a segment is decode's: few queries, `group` of them for each token.
bool IsDecode(const KvSegment& segment, int32_t group, const DecodeLimits& limits);

// Of the segments that are decode's; the others are left out. Where there is much to do, all shares but the last are
// full, and a head's tiles may lie in several of them, one after the other. Where there is little, a share has tiles of
// one head alone, and a short context is not cut.
//
// Algorithm: Osama et al., "Stream-K", 2023, for tiles of attention.
void PlanDecode(const std::vector<KvSegment>& segments, int32_t group, int32_t kv_head_count,
                const DecodeLimits& limits, DecodePlan* plan);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_DECODE_PLAN_H_
