// Where keys and values lie on the device, and how a step's rows are told to the kernels that use them.

#ifndef FERMATA_KERNELS_CUDA_KV_LAYOUT_H_
#define FERMATA_KERNELS_CUDA_KV_LAYOUT_H_

#include <cstdint>

namespace fermata::kernels::cuda {

// The bfloat16 pool, [block][layer][K, V][kv head][slot][head size]: one layer of it.
struct KvLayer {
  uint16_t* data = nullptr;  // of block 0 and this layer
  int64_t block_stride = 0;  // elements from one block to the next
  int32_t block_tokens = 0;
  int32_t kv_head_count = 0;
  int32_t head_size = 0;
};

// Rows first_row .. first_row + row_count of a step are the tokens at first_position and on, of a context whose blocks
// begin at blocks[first_block].
struct KvSegment {
  int32_t first_row = 0;
  int32_t row_count = 0;
  int32_t first_position = 0;
  int32_t first_block = 0;
};

// Of a row that nothing is stored of.
inline constexpr int32_t kNoBlock = -1;

// One row of a step.
struct KvRow {
  int32_t position = 0;
  int32_t block = 0;  // physical, of that position; or kNoBlock
};

// A piece of attention: some queries over some positions.
struct AttentionItem {
  KvSegment segment;
  int32_t first_query = 0;  // row within the segment
  int32_t query_count = 0;
  int32_t begin = 0;  // positions
  int32_t end = 0;
  int32_t partial = -1;       // place of its partial result; -1: it is whole
  int32_t partial_count = 0;  // of the pieces that it is one of, from place partial - its index on
  int32_t partial_index = 0;
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_KV_LAYOUT_H_
