// Attention over the paged cache, shared out over threads.

#ifndef FERMATA_KERNELS_CPU_CPU_ATTENTION_H_
#define FERMATA_KERNELS_CPU_CPU_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/kv_type.h"
#include "kernels/cpu/row_ops.h"
#include "kernels/cpu/thread_pool.h"

namespace fermata::kernels {

// One layer's cache: [block][..], of each block this layer's keys, [kv head][head size][slot], then its values,
// [kv head][slot][head size].
struct KvLayer {
  KvType type;
  const std::byte* base;  // of block 0
  int64_t block_stride;   // bytes
  KvShape shape;
};

// Work is cut by rows, KV heads and, for a row that comes alone with a long context, spans of it: what belongs to a row
// is added up in the order of spans, whoever does it. Keeps its memory from call to call. One thread at a time.
class CpuAttention {
 public:
  // Borrows all; they must outlive this.
  CpuAttention(const RowOps& ops, ThreadPool& pool) : ops_(ops), pool_(pool), scratch_(pool.threads()) {}

  // As Backend::Attention(): q and output [rows][head_count][head size].
  void Run(absl::Span<const Segment> segments, const KvLayer& layer, int32_t head_count, const float* q, float* output);

 private:
  // Rows of one segment that are done together; or, of one row, some of its spans.
  struct Piece {
    const Segment* segment;
    int32_t row;  // first of the segment's
    int32_t row_count;
    int32_t first_span;
    int32_t span_count;
    int64_t results;  // where they are kept if others have the rest of the spans; -1: nobody has
  };

  // What a thread needs for itself.
  struct Scratch {
    std::vector<float> scores;
    std::vector<float> results;
  };

  struct Shape;

  void Cut(absl::Span<const Segment> segments, const Shape& shape);
  void RunPiece(const Piece& piece, int32_t kv_head, const Shape& shape, Scratch& scratch);

  const RowOps& ops_;
  ThreadPool& pool_;
  std::vector<Piece> pieces_;
  std::vector<Piece> merges_;   // rows whose spans are in several pieces
  std::vector<float> results_;  // of those
  std::vector<Scratch> scratch_;
};

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_CPU_ATTENTION_H_
