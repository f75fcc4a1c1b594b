// Shares out a step's attention in pieces: plain C++, no device.

#ifndef FERMATA_KERNELS_CUDA_ATTENTION_PLAN_H_
#define FERMATA_KERNELS_CUDA_ATTENTION_PLAN_H_

#include <cstdint>
#include <vector>

#include "kernels/cuda/kv_layout.h"

namespace fermata::kernels::cuda {

// The limits of the kernels, and how many pieces the device can work on at once.
struct AttentionLimits {
  int32_t decode_queries = 16;    // queries (tokens times heads of a group) of one decode item
  int32_t prefill_queries = 128;  // and of one prefill item
  int32_t tile = 64;              // positions
  int32_t resident_blocks = 1;    // blocks of threads that are on the device together
  bool whole = false;             // decode items are not cut
  int32_t pieces_per_place = 1;   // of the decode items
  bool leave_decode = false;      // segments of few queries are left out: PlanDecode() shares them out
};

struct AttentionPlan {
  std::vector<AttentionItem> decode;   // pieces of one segment beside each other
  std::vector<AttentionItem> prefill;  // longest first, so that no long one is left for the end
  int32_t partial_count = 0;           // places that pieces of decode items need
};

// Segments of few queries become decode items, cut over their length as far as the device would else be idle. `group`
// is the number of query heads that share a KV head, at most prefill_queries. Every row of every segment is in exactly
// one query range, and the pieces over it cover all positions that it attends to, once.
void PlanAttention(const std::vector<KvSegment>& segments, int32_t group, int32_t kv_head_count,
                   const AttentionLimits& limits, AttentionPlan* plan);

// More decode items than `segments` of one row each ever have.
int32_t MaxDecodeItems(int32_t segments, int32_t kv_head_count, const AttentionLimits& limits);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_ATTENTION_PLAN_H_
