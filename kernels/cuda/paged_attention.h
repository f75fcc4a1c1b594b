// Attention over the paged cache, by tensor cores: one kernel for few queries (decode), one for many (prefill).

#ifndef FERMATA_KERNELS_CUDA_PAGED_ATTENTION_H_
#define FERMATA_KERNELS_CUDA_PAGED_ATTENTION_H_

#include <cstdint>

#include "kernels/cuda/kv_layout.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

// Queries (tokens times heads of a group) that one block of threads takes, and positions that it takes at a time.
inline constexpr int32_t kDecodeQueries = 16;
inline constexpr int32_t kPrefillQueries = 128;
inline constexpr int32_t kAttentionTile = 64;

bool ServesHeadSize(int32_t head_size);

// What the calls below work on; all pointers are device memory.
struct AttentionInput {
  const AttentionItem* items = nullptr;
  int32_t item_count = 0;
  const int32_t* blocks = nullptr;  // of all segments
  KvLayer kv;
  int32_t head_count = 0;       // of queries; a multiple of kv.kv_head_count
  const uint16_t* q = nullptr;  // bfloat16, [rows][head_count][head size]
  int64_t q_stride = 0;         // elements from one row of q to the next
  uint16_t* output = nullptr;   // the same shape, rows following each other
  float* partials = nullptr;    // PartialFloats() for each place that items name
  uint32_t* tickets = nullptr;  // head_count for each place; zeros before and after
};

// Floats of one place of AttentionInput::partials.
int64_t PartialFloats(int32_t head_count, const KvLayer& kv);

// output[r][h] = attention of q[r][h] over positions begin .. end of its item up to its own, scores scaled by 1 /
// sqrt(head size). The query heads of a group read each key and value once, together. Asynchronous on `stream`; return
// the launch's cudaError_t (0: launched); no items are no launch.
//
// REQUIRES: ServesHeadSize(). For Decode: an item has one query, or its queries times the heads of a group are at most
// kDecodeQueries; it may be a piece: whichever block finishes one last puts all of them together. For Prefill: at most
// kPrefillQueries, and all items are whole.
//
// An item without queries is nothing.
//
// For whole items, a row's result of both is the same, to the bit, and depends on nothing but its query and its
// context.
//
// Algorithm: Dao, "FlashAttention-2", 2023; split over length as in Dao et al., "Flash-Decoding", 2023.
int DecodeAttention(const AttentionInput& input, CUstream_st* stream);
int PrefillAttention(const AttentionInput& input, CUstream_st* stream);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_PAGED_ATTENTION_H_
