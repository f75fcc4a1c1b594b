#include <cuda_runtime.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/paged_attention.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int64_t kStepTableBytes = 16 << 20;
constexpr int64_t kPartialBytes = 64 << 20;
constexpr int64_t kTicketBytes = 1 << 20;
constexpr int64_t kHostTokenBytes = 256 << 10;  // more tokens than a kernel's grid has rows
constexpr int32_t kBlocksPerProcessor = 2;      // of decode attention

}  // namespace

DeviceState::~DeviceState() {
  if (stream == nullptr) return;
  cudaStreamSynchronize(stream);
  upload.reset();
  products.reset();
  cudaStreamDestroy(stream);
}

absl::Status DeviceState::Start() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    return absl::UnavailableError("no CUDA device: it, its driver, or one that is new enough is missing");
  }
  cudaError_t error = cudaSetDevice(0);
  cudaDeviceProp properties;
  if (error == cudaSuccess) error = cudaGetDeviceProperties(&properties, 0);
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) return CudaStatus(error, "device 0");
  processors = properties.multiProcessorCount;
  upload = std::make_unique<WeightUpload>(stream);
  absl::StatusOr<std::unique_ptr<KvTransfer>> streams = KvTransfer::Create();
  if (!streams.ok()) return streams.status();
  transfer = *std::move(streams);
  absl::StatusOr<std::unique_ptr<MatrixProduct>> made = MatrixProduct::Create(stream, options.batch_invariant);
  if (!made.ok()) return made.status();
  products = *std::move(made);
  absl::StatusOr<StagedUpload> staged = StagedUpload::Create(kStepTableBytes, stream);
  if (!staged.ok()) return staged.status();
  tables = std::make_unique<StagedUpload>(*std::move(staged));
  Grow(kPartialBytes, &partials);
  Grow(kTicketBytes, &tickets);
  absl::StatusOr<CudaMemory> pinned = CudaMemory::Allocate(MemoryKind::kPinnedHost, kHostTokenBytes);
  if (!pinned.ok()) return pinned.status();
  host_tokens = *std::move(pinned);
  return std::exchange(status, absl::OkStatus());
}

absl::Status DeviceState::AllocateKv(const KvShape& shape) {
  if (!ServesHeadSize(shape.head_size)) {
    return absl::UnimplementedError(
        absl::StrCat("heads of ", shape.head_size, " elements; on CUDA 16, 32, 64, 80, 96 and 128 are served"));
  }
  const int64_t bytes = shape.block_count * shape.block_elements() * int64_t{sizeof(uint16_t)};
  kv = CudaMemory();
  absl::StatusOr<CudaMemory> memory = CudaMemory::Allocate(MemoryKind::kDevice, bytes);
  if (!memory.ok()) {
    return absl::ResourceExhaustedError(absl::StrCat("the KV cache of ", shape.block_count, " blocks of ",
                                                     shape.block_tokens, " tokens: ", memory.status().message()));
  }
  kv = *std::move(memory);
  kv_shape = shape;
  kv_map = MapKv(kv.as<void>(), kv_shape);
  return absl::OkStatus();
}

KvLayer DeviceState::Layer(int32_t layer) const {
  return {kv.as<uint16_t>() + layer * kv_shape.layer_elements(), kv_shape.block_elements(), kv_shape.block_tokens,
          kv_shape.kv_head_count, kv_shape.head_size};
}

void DeviceState::BeginStep(absl::Span<const Segment> step_segments) {
  Check(cudaStreamSynchronize(stream), "the step before");
  tables->Reset();
  segments.clear();
  rows.clear();
  blocks.clear();
  planned_head_count = 0;
  const int32_t block_tokens = kv_shape.block_tokens;
  for (const Segment& segment : step_segments) {
    const int32_t end = segment.first_position + segment.row_count;
    segments.push_back(
        {segment.first_row, segment.row_count, segment.first_position, static_cast<int32_t>(blocks.size())});
    blocks.insert(blocks.end(), segment.blocks, segment.blocks + (end + block_tokens - 1) / block_tokens);
    for (int32_t position = segment.first_position; position < end; ++position) {
      rows.push_back({position, segment.blocks[position / block_tokens]});
    }
  }
  device_rows = Put(rows.data(), rows.size());
  device_blocks = Put(blocks.data(), blocks.size());
}

void DeviceState::PlanStep(int32_t head_count) {
  if (planned_head_count == head_count) return;
  planned_head_count = head_count;
  const int32_t group = head_count / kv_shape.kv_head_count;
  if (group > kPrefillQueries) {
    Check(absl::UnimplementedError(
        absl::StrCat(group, " query heads to a KV head; on CUDA at most ", kPrefillQueries, " are served")));
    return;
  }
  const AttentionLimits limits = {kDecodeQueries,
                                  kPrefillQueries,
                                  kAttentionTile,
                                  processors * kBlocksPerProcessor,
                                  /*whole=*/options.batch_invariant,
                                  options.pieces_per_place};
  PlanAttention(segments, group, kv_shape.kv_head_count, limits, &plan);
  decode_items = Put(plan.decode.data(), plan.decode.size());
  prefill_items = Put(plan.prefill.data(), plan.prefill.size());
  Grow(plan.partial_count * PartialFloats(head_count, Layer(0)) * int64_t{sizeof(float)}, &partials);
  Grow(plan.partial_count * head_count * int64_t{sizeof(uint32_t)}, &tickets);
}

void DeviceState::Grow(int64_t bytes, CudaMemory* memory) {
  if (bytes <= memory->bytes()) return;
  Check(cudaStreamSynchronize(stream), "work with memory that grows");
  absl::StatusOr<CudaMemory> grown = CudaMemory::Allocate(MemoryKind::kDevice, bytes);
  Check(grown.status());
  if (!grown.ok()) return;
  *memory = *std::move(grown);
  Check(cudaMemsetAsync(memory->as<void>(), 0, static_cast<size_t>(memory->bytes()), stream), "zeros");
}

}  // namespace fermata::kernels::cuda
