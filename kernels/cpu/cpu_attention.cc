#include "kernels/cpu/cpu_attention.h"

#include <algorithm>
#include <cmath>

namespace fermata::kernels {
namespace {

// Rows of a prompt that are done together: their keys and values are read once.
constexpr int32_t kRowsAtOnce = 8;

// Spans of a row's context that one thread takes at a time.
constexpr int32_t kSpansAtOnce = 2;

int32_t SpanCount(int32_t positions) { return (positions + kAttentionSpan - 1) / kAttentionSpan; }

}  // namespace

struct CpuAttention::Shape {
  const KvLayer& layer;
  int32_t head_count;
  const float* q;
  float* output;

  int32_t size() const { return layer.shape.head_size; }
  int32_t group() const { return head_count / layer.shape.kv_head_count; }
  int64_t result_stride() const { return size() + static_cast<int64_t>(sizeof(SpanResult) / sizeof(float)); }
  int64_t offset(int64_t row, int32_t head) const { return (row * head_count + head) * size(); }

  PagedHead Head(const Segment& segment, int32_t kv_head) const {
    const KvShape& kv = layer.shape;
    const int64_t bytes = kv.head_elements() * BytesOf(layer.type);
    const std::byte* keys = layer.base + kv_head * bytes;
    return {layer.type,      keys,        keys + kv.kv_head_count * bytes, layer.block_stride, segment.blocks,
            kv.block_tokens, kv.head_size};
  }
};

void CpuAttention::Cut(absl::Span<const Segment> segments, const Shape& shape) {
  pieces_.clear();
  merges_.clear();
  int64_t results = 0;
  for (const Segment& segment : segments) {
    const int32_t spans = SpanCount(segment.first_position + segment.row_count);
    if (segment.row_count == 1 && spans > kSpansAtOnce) {
      merges_.push_back({&segment, 0, 1, 0, spans, results});
      for (int32_t span = 0; span < spans; span += kSpansAtOnce) {
        pieces_.push_back({&segment, 0, 1, span, std::min(kSpansAtOnce, spans - span), results});
      }
      results += int64_t{spans} * shape.head_count * shape.result_stride();
      continue;
    }
    for (int32_t row = 0; row < segment.row_count; row += kRowsAtOnce) {
      const int32_t count = std::min(kRowsAtOnce, segment.row_count - row);
      pieces_.push_back({&segment, row, count, 0, SpanCount(segment.first_position + row + count), -1});
    }
  }
  if (static_cast<int64_t>(results_.size()) < results) results_.resize(results);
}

void CpuAttention::Run(absl::Span<const Segment> segments, const KvLayer& layer, int32_t head_count, const float* q,
                       float* output) {
  const Shape shape = {layer, head_count, q, output};
  Cut(segments, shape);
  const int32_t kv_heads = layer.shape.kv_head_count;
  pool_.Run(static_cast<int64_t>(pieces_.size()) * kv_heads, /*chunk=*/1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      RunPiece(pieces_[i / kv_heads], static_cast<int32_t>(i % kv_heads), shape, scratch_[thread]);
    }
  });
  for (const Piece& merge : merges_) {
    for (int32_t h = 0; h < head_count; ++h) {
      MergeSpans(results_.data() + merge.results + int64_t{h} * merge.span_count * shape.result_stride(),
                 shape.result_stride(), merge.span_count, shape.size(),
                 output + shape.offset(merge.segment->first_row, h));
    }
  }
}

void CpuAttention::RunPiece(const Piece& piece, int32_t kv_head, const Shape& shape, Scratch& scratch) {
  const Segment& segment = *piece.segment;
  const PagedHead head = shape.Head(segment, kv_head);
  const float scale = 1.0f / std::sqrt(static_cast<float>(shape.size()));
  const int32_t group = shape.group();
  const int32_t queries = piece.row_count * group;
  const int64_t stride = shape.result_stride();
  const bool whole = piece.results < 0;
  // [query][span]; of a row whose spans others have too: of all its spans.
  const int32_t row_spans = whole ? piece.span_count : SpanCount(segment.first_position + piece.row + 1);
  scratch.scores.resize(AttentionScratch(shape.size()));
  if (whole && static_cast<int64_t>(scratch.results.size()) < queries * piece.span_count * stride) {
    scratch.results.resize(queries * piece.span_count * stride);
  }
  float* const results =
      whole ? scratch.results.data() : results_.data() + piece.results + int64_t{kv_head} * group * row_spans * stride;
  const auto result = [&](int32_t query, int32_t span) {
    return reinterpret_cast<SpanResult*>(results + (int64_t{query} * row_spans + span) * stride);
  };
  const auto end_of = [&](int32_t query) { return segment.first_position + piece.row + query / group + 1; };
  for (int32_t span = piece.first_span; span < piece.first_span + piece.span_count; ++span) {
    AttentionTile tile = {};
    tile.begin = span * kAttentionSpan;
    for (int32_t query = 0; query < queries; ++query) {
      const int32_t end = std::min(end_of(query), tile.begin + kAttentionSpan);
      // A row's context may end before this span.
      if (end > tile.begin) {
        const int64_t row = segment.first_row + piece.row + query / group;
        tile.queries[tile.query_count] = shape.q + shape.offset(row, kv_head * group + query % group);
        tile.ends[tile.query_count] = end;
        tile.results[tile.query_count++] = result(query, span);
      }
      if (tile.query_count == kQueryTile || (query + 1 == queries && tile.query_count > 0)) {
        ops_.attention(tile, head, scale, scratch.scores.data());
        tile.query_count = 0;
      }
    }
  }
  if (!whole) return;
  for (int32_t query = 0; query < queries; ++query) {
    const int64_t row = segment.first_row + piece.row + query / group;
    MergeSpans(results + int64_t{query} * row_spans * stride, stride, SpanCount(end_of(query)), shape.size(),
               shape.output + shape.offset(row, kv_head * group + query % group));
  }
}

}  // namespace fermata::kernels
