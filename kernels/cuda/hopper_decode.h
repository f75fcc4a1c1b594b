// Decode's attention over the paged cache by Hopper's own means: one warp brings tiles by the tensor memory
// accelerator, far ahead of four that compute, and blocks of threads stay for all of a step's work.

#ifndef FERMATA_KERNELS_CUDA_HOPPER_DECODE_H_
#define FERMATA_KERNELS_CUDA_HOPPER_DECODE_H_

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cuda/decode_plan.h"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/tensor_map.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

inline constexpr int32_t kHopperDecodeQueries = 16;
inline constexpr int32_t kHopperDecodeTile = 64;
inline constexpr int32_t kHopperDecodeBlocks = 2;  // of threads, on one processor

// The pool as the accelerator sees it: keys and values of one head in one block at a time.
struct DecodeMap {
  TensorMap tensor;  // usable if device and shape are served
  KvShape shape;
};

// `pool` is device memory of that shape. Heads of 128 elements and blocks of 8, 16, 32 or 64 tokens, on a device of
// compute capability 9.0, are served.
DecodeMap MapKvForDecode(void* pool, const KvShape& shape);

// What is turned and stored first, where all segments have one row: as RopeAndStore() does, but q is left as it was.
struct DecodeRope {
  const float* frequencies = nullptr;  // [head size / 2]; null: queries are turned, keys and values stored already
  const uint16_t* k = nullptr;         // bfloat16, [rows][KV heads][head size]
  const uint16_t* v = nullptr;         // likewise
  int64_t k_stride = 0;                // elements from one row to the next
  int64_t v_stride = 0;
  KvLayer kv;
};

// All pointers are device memory; the plan is PlanDecode()'s, for kHopperDecodeQueries and kHopperDecodeTile.
struct HopperDecodeInput {
  const DecodeShare* shares = nullptr;  // `blocks_of_threads` at least, zeros behind the last
  const DecodeUnit* units = nullptr;
  const int32_t* blocks = nullptr;  // of all segments
  int32_t head_count = 0;           // of queries; a multiple of KV heads
  const uint16_t* q = nullptr;      // bfloat16, [rows][head_count][head size]
  int64_t q_stride = 0;             // elements from one row of q to the next
  uint16_t* output = nullptr;       // the same shape, rows following each other
  float* partials = nullptr;        // HopperDecodePartialFloats() of all shares
  uint32_t* tickets = nullptr;      // two for each share; zeros before and after
  DecodeRope rope;
};

int64_t HopperDecodePartialFloats(int32_t shares);

// output[r][h] = attention of q[r][h] over all positions of its segment up to its own, scores scaled by 1 / sqrt(head
// size), for the rows of the plan's units and no others. Asynchronous on `stream`; returns the launch's cudaError_t (0:
// launched). REQUIRES: map.tensor.usable.
//
// Algorithm: Dao et al., "Flash-Decoding", 2023, shared out as by PlanDecode().
int HopperDecode(const HopperDecodeInput& input, const DecodeMap& map, int32_t layer, int32_t blocks_of_threads,
                 CUstream_st* stream);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_HOPPER_DECODE_H_
