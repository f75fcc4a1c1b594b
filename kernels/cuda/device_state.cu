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
  recorded_.clear();
  watch.reset();
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
  if (options.time_steps) watch = std::make_unique<StepWatch>(stream);
  absl::StatusOr<std::unique_ptr<KvTransfer>> streams = KvTransfer::Create();
  if (!streams.ok()) return streams.status();
  transfer = *std::move(streams);
  absl::StatusOr<std::unique_ptr<MatrixProduct>> made =
      MatrixProduct::Create(stream, options.batch_invariant, options.warpgroup_products);
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
  decode_map = MapKvForDecode(kv.as<void>(), kv_shape);
  recorded_.clear();  // they have the place of the cache before
  return absl::OkStatus();
}

KvLayer DeviceState::Layer(int32_t layer) const {
  return {kv.as<uint16_t>() + layer * kv_shape.layer_elements(), kv_shape.block_elements(), kv_shape.block_tokens,
          kv_shape.kv_head_count, kv_shape.head_size};
}

void DeviceState::LayOut(absl::Span<const Segment> step_segments) {
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
  row_count = static_cast<int32_t>(rows.size());
}

void DeviceState::BeginStep(absl::Span<const Segment> step_segments) {
  Check(cudaStreamSynchronize(stream), "the step before");
  tables->Reset();
  if (watch != nullptr) watch->Begin();
  LayOut(step_segments);
  device_rows = Put(rows.data(), rows.size());
  device_blocks = Put(blocks.data(), blocks.size());
}

AttentionLimits DeviceState::Limits(int32_t head_count) const {
  AttentionLimits limits;
  limits.decode_queries = kDecodeQueries;
  limits.prefill_queries = kPrefillQueries;
  limits.tile = kAttentionTile;
  limits.resident_blocks = processors * kBlocksPerProcessor;
  limits.whole = options.batch_invariant;
  limits.pieces_per_place = options.pieces_per_place;
  limits.leave_decode = SharesDecode(head_count);
  return limits;
}

void DeviceState::Plan(int32_t head_count) {
  const int32_t group = head_count / kv_shape.kv_head_count;
  PlanAttention(segments, group, kv_shape.kv_head_count, Limits(head_count), &plan);
  decode_plan = DecodePlan();
  if (!SharesDecode(head_count)) return;
  PlanDecode(segments, group, kv_shape.kv_head_count, SharedLimits(), &decode_plan);
  // Blocks of threads that have nothing to do find a share of nothing.
  if (decode_plan.shares.empty()) return;
  decode_plan.shares.resize(std::max(decode_plan.shares.size(), static_cast<size_t>(places())));
}

void DeviceState::GrowForAttention(int32_t head_count, int32_t items, int32_t shares) {
  Grow(items * PartialFloats(head_count, Layer(0)) * int64_t{sizeof(float)}, &partials);
  Grow(int64_t{items} * head_count * int64_t{sizeof(uint32_t)}, &tickets);
  Grow(HopperDecodePartialFloats(shares) * int64_t{sizeof(float)}, &decode_partials);
  Grow(int64_t{2} * shares * int64_t{sizeof(uint32_t)}, &decode_tickets);
}

void DeviceState::PlanStep(int32_t head_count, bool awaited) {
  if (recording != nullptr) {
    if (recording->head_count == head_count) return;
    recording->head_count = head_count;
    const StepLayout& layout = recording->layout();
    GrowForAttention(head_count, layout.items, layout.shares);
    decode_items = recording->items();
    decode_item_count = layout.items;
    decode_units = recording->units();
    decode_shares = layout.shares > 0 ? recording->shares() : nullptr;
    return;
  }
  if (planned_head_count == head_count) return;
  planned_head_count = head_count;
  const int32_t group = head_count / kv_shape.kv_head_count;
  if (group > kPrefillQueries) {
    Check(absl::UnimplementedError(
        absl::StrCat(group, " query heads to a KV head; on CUDA at most ", kPrefillQueries, " are served")));
    return;
  }
  Plan(head_count);
  decode_items = Put(plan.decode.data(), plan.decode.size());
  decode_item_count = static_cast<int32_t>(plan.decode.size());
  prefill_items = Put(plan.prefill.data(), plan.prefill.size());
  decode_units = Put(decode_plan.units.data(), decode_plan.units.size());
  decode_shares = Put(decode_plan.shares.data(), decode_plan.shares.size());
  GrowForAttention(head_count, plan.partial_count, static_cast<int32_t>(decode_plan.shares.size()));
  // Attention reads its tables before the kernel in front of it is done.
  if (!awaited) Check(cudaStreamSynchronize(stream), "the tables of attention");
}

absl::Status DeviceState::Record(int32_t step_rows, absl::FunctionRef<void()> ask) {
  if (!options.record_steps) return absl::UnimplementedError("steps are not recorded");
  if (kv_shape.kv_head_count == 0) return absl::FailedPreconditionError("a step is recorded after AllocateKv()");
  Check(cudaStreamSynchronize(stream), "the step before");
  tables->Reset();
  LayOut({});
  plan = AttentionPlan();
  row_count = step_rows;
  // Which kind of attention it is, is known when it is asked for: there is room for both.
  AttentionLimits limits = Limits(kv_shape.kv_head_count);
  const StepLayout layout(step_rows, MaxDecodeItems(step_rows, kv_shape.kv_head_count, limits),
                          decode_map.tensor.usable ? std::max(MaxDecodeShares(SharedLimits()), places()) : 0);
  auto step = std::make_unique<RecordedStep>(layout, tables->device());
  const absl::Span<const uint8_t> image = step->Fill({});
  Put(image.data(), image.size());
  recording = step.get();
  device_rows = step->rows();
  device_blocks = step->blocks();
  Check(RecordFaster(ask));
  recording = nullptr;
  if (status.ok()) recorded_[step_rows] = std::move(step);
  return std::exchange(status, absl::OkStatus());
}

absl::Status DeviceState::RecordFaster(absl::FunctionRef<void()> ask) {
  const auto record = [&](bool fused, bool first_time) {
    fuses_recording = fused;
    // Once for all that is done the first time only: kernels are loaded, memory grows.
    if (first_time) ask();
    Check(cudaStreamSynchronize(stream), "the step to record");
    if (status.ok()) Check(recording->Capture(stream, ask));
    Check(cudaStreamSynchronize(stream), "the recorded step");
  };
  fused_a_layer = false;
  record(options.fused_layers, /*first_time=*/true);
  if (fused_a_layer) {
    const double fused = RecordedSeconds();
    record(false, /*first_time=*/true);
    fuses_[recording->layout().rows] = fused <= RecordedSeconds();
    if (fuses_[recording->layout().rows]) record(true, /*first_time=*/false);
  }
  return std::exchange(status, absl::OkStatus());
}

double DeviceState::RecordedSeconds() {
  constexpr int kRounds = 4;
  StepWatch step_watch(stream);
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    step_watch.Begin();
    Check(recording->Launch(stream), "the recorded step");
    step_watch.End();
    Check(cudaStreamSynchronize(stream), "the recorded step");
    const double seconds = step_watch.Seconds();
    if (round == 0 || seconds < best) best = seconds;
  }
  return best;
}

bool DeviceState::FusesLayers(int32_t step_rows) const {
  if (!options.fused_layers || options.batch_invariant) return false;
  if (recording != nullptr) return fuses_recording;
  const auto found = fuses_.lower_bound(step_rows);
  return found == fuses_.end() || found->second;
}

bool DeviceState::Replay(absl::Span<const Segment> step_segments, absl::Span<const int32_t> tokens,
                         absl::Span<const int32_t> output_rows) {
  const auto found = recorded_.lower_bound(static_cast<int32_t>(tokens.size()));
  if (found == recorded_.end() || step_segments.size() != tokens.size() || output_rows.size() != tokens.size()) {
    return false;
  }
  Check(cudaStreamSynchronize(stream), "the step before");
  tables->Reset();
  if (watch != nullptr) watch->Begin();
  LayOut(step_segments);
  RecordedStep& step = *found->second;
  Plan(step.head_count);
  const absl::Span<const uint8_t> image =
      step.Fill({tokens, output_rows, rows, plan.decode, decode_plan.units, decode_plan.shares, blocks});
  Put(image.data(), image.size());
  if (status.ok()) Check(step.Launch(stream), "a recorded step");
  return true;
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
