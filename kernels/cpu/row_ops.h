// The operations of a forward pass on one row, besides products: plain C++ for the exact path, vectors for the fast
// one.

#ifndef FERMATA_KERNELS_CPU_ROW_OPS_H_
#define FERMATA_KERNELS_CPU_ROW_OPS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/kv_type.h"
#include "kernels/cpu/quantized_rows.h"

namespace fermata::kernels {

// Where the keys and values of one KV head of one generation are: position p is slot p % block_tokens of block
// blocks[p / block_tokens], which begins at base + block * block_stride. Keys of a block: [head size][slot], so that a
// vector holds the same element of many positions. Values: [slot][head size].
struct PagedHead {
  KvType type;
  const std::byte* keys;  // of block 0
  const std::byte* values;
  int64_t block_stride;  // bytes
  const int32_t* blocks;
  int32_t block_tokens;
  int32_t head_size;
};

// A context is attended to in spans of so many positions, each by itself, whoever asks: so what a row comes to depends
// neither on the rows beside it nor on how spans are shared out over threads.
inline constexpr int32_t kAttentionSpan = 256;

// The most queries that are served together, so that keys and values are read once for all.
inline constexpr int kQueryTile = 12;

// What a query comes to over one span: followed by head_size floats, the sum of values, each times its weight
// exp(score - largest).
struct SpanResult {
  float largest;
  float weight_sum;

  float* values() { return reinterpret_cast<float*>(this + 1); }
  const float* values() const { return reinterpret_cast<const float*>(this + 1); }
};

// Queries over one span of one head: positions [begin, ends[q]).
struct AttentionTile {
  int query_count;                   // 1 to kQueryTile
  const float* queries[kQueryTile];  // [head size]
  int32_t begin;                     // a multiple of kAttentionSpan
  int32_t ends[kQueryTile];          // begin + 1 to begin + kAttentionSpan
  SpanResult* results[kQueryTile];
};

// How far a pair of neighbouring elements is turned, twice over: {cos, cos} and {-sin, sin}.
struct Turn {
  float cosines[2];
  float sines[2];
};

// All pointers are float32, not overlapping except where said. The bits of a result depend on the arguments' values
// alone.
struct RowOps {
  // output[i] = x[i] * weight[i] / sqrt(mean(x^2) + epsilon).
  void (*rms_norm)(const float* x, const float* weight, float epsilon, int32_t size, float* output);

  // gate[i] = silu(gate[i]) * up[i].
  void (*swiglu)(const float* up, int32_t size, float* gate);

  // The results of a tile, scores scaled by `scale`. `scores` is scratch, AttentionScratch(head size) floats. With one
  // span a query's attention is values / weight_sum; MergeSpans() has the general case.
  void (*attention)(const AttentionTile& tile, const PagedHead& head, float scale, float* scores);

  // As QuantizeBlocks(), and with the same results.
  void (*quantize)(const float* x, int64_t row, int64_t first, int64_t count, QuantizedRows& rows);

  // The sum of a[i] * b[i].
  float (*dot)(const float* a, const float* b, int64_t size);

  // x[i] += y[i].
  void (*add)(const float* y, int64_t size, float* x);

  // Turns the pairs 2i, 2i + 1 of each head; turns [head_size / 2].
  void (*rotate)(const Turn* turns, int32_t head_count, int32_t head_size, float* heads);

  // x in another type: rounded to the nearest, ties to even.
  void (*convert)(const float* x, int32_t size, KvType type, std::byte* output);
};

// Scores of one query of a tile; a vector may write beyond the last. A cache line more than a power of two, so that
// those of all queries for one position do not compete for the same places of the cache.
inline constexpr int32_t kScoreStride = kAttentionSpan + 64 + 16;

// Scores of a tile and its queries.
constexpr int64_t AttentionScratch(int32_t head_size) { return int64_t{kQueryTile} * (kScoreStride + head_size); }

// output [head_size] = what `count` spans of one query come to together, in their order. Result i is `stride` floats
// after the one before it. Algorithm: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
void MergeSpans(const float* results, int64_t stride, int32_t count, int32_t head_size, float* output);

// Loops as they are written in the formulas. The reference.
const RowOps& PlainRowOps();

// Highway's vectors, the widest that the machine has, or at most those of AVX2. Both give the same bits.
const RowOps& VectorRowOps(bool avx512 = true);

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_ROW_OPS_H_
