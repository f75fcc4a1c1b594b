#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/recorded_step.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int64_t kAlignment = 256;

// Makes room for `count` elements behind `end`.
int64_t Reserve(int64_t count, size_t element, int64_t* end) {
  const int64_t begin = *end;
  *end += (count * static_cast<int64_t>(element) + kAlignment - 1) / kAlignment * kAlignment;
  return begin;
}

template <typename T>
void CopyTo(absl::Span<const T> from, int64_t offset, std::vector<uint8_t>* image) {
  if (!from.empty()) std::memcpy(image->data() + offset, from.data(), from.size() * sizeof(T));
}

}  // namespace

StepLayout::StepLayout(int32_t row_count, int32_t item_count, int32_t share_count)
    : rows(row_count), items(item_count), shares(share_count) {
  int64_t end = 0;
  tokens_at = Reserve(rows, sizeof(int32_t), &end);
  outputs_at = Reserve(rows, sizeof(int32_t), &end);
  rows_at = Reserve(rows, sizeof(KvRow), &end);
  items_at = Reserve(items, sizeof(AttentionItem), &end);
  units_at = Reserve(shares > 0 ? rows + 1 : 0, sizeof(DecodeUnit), &end);
  shares_at = Reserve(shares, sizeof(DecodeShare), &end);
  blocks_at = end;
}

RecordedStep::RecordedStep(const StepLayout& layout, const void* tables)
    : layout_(layout), tables_(static_cast<const uint8_t*>(tables)) {}

RecordedStep::~RecordedStep() {
  if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
}

absl::Span<const uint8_t> RecordedStep::Fill(const StepTables& tables) {
  // Zeros are token 0, row 0, an item without queries, a share of nothing.
  image_.assign(static_cast<size_t>(layout_.blocks_at) + tables.blocks.size() * sizeof(int32_t), 0);
  CopyTo(tables.tokens, layout_.tokens_at, &image_);
  CopyTo(tables.outputs, layout_.outputs_at, &image_);
  std::vector<KvRow> rows(static_cast<size_t>(layout_.rows), KvRow{0, kNoBlock});
  std::copy(tables.rows.begin(), tables.rows.end(), rows.begin());
  CopyTo(absl::MakeConstSpan(rows), layout_.rows_at, &image_);
  CopyTo(tables.items, layout_.items_at, &image_);
  CopyTo(tables.units, layout_.units_at, &image_);
  CopyTo(tables.shares, layout_.shares_at, &image_);
  CopyTo(tables.blocks, layout_.blocks_at, &image_);
  return image_;
}

absl::Status RecordedStep::Capture(CUstream_st* stream, absl::FunctionRef<void()> ask) {
  // Other threads may go on with copies of KV meanwhile.
  cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed);
  if (error != cudaSuccess) return CudaStatus(error, "recording a step");
  ask();
  cudaGraph_t graph = nullptr;
  error = cudaStreamEndCapture(stream, &graph);
  if (graph_ != nullptr) cudaGraphExecDestroy(std::exchange(graph_, nullptr));
  if (error == cudaSuccess) error = cudaGraphInstantiate(&graph_, graph, 0);
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (error == cudaSuccess) error = cudaGraphUpload(graph_, stream);
  return CudaStatus(error, "recording a step");
}

int RecordedStep::Launch(CUstream_st* stream) const { return cudaGraphLaunch(graph_, stream); }

}  // namespace fermata::kernels::cuda
