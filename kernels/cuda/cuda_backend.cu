#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_objects.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/draw_tokens.h"
#include "kernels/cuda/fused_layer.h"
#include "kernels/cuda/hopper_attention.h"
#include "kernels/cuda/paged_attention.h"
#include "kernels/cuda/rope_and_store.h"
#include "kernels/cuda/row_kernels.h"
#include "kernels/cuda/select_tokens.h"
#include "kernels/cuda/small_product.h"
#include "kernels/cuda/weight_upload.h"

namespace fermata::kernels {
namespace {

using cuda::CudaBuffer;
using cuda::CudaMemory;
using cuda::CudaStatus;
using cuda::CudaWeights;
using cuda::MemoryKind;

// Of one SelectTokens().
constexpr int32_t kMaxLogitChanges = 1 << 16;
constexpr int32_t kMaxSelections = 4096;

const uint16_t* Data(const Buffer& buffer) { return static_cast<const uint16_t*>(CudaBuffer::From(buffer).data()); }
uint16_t* Data(Buffer& buffer) { return static_cast<uint16_t*>(CudaBuffer::From(buffer).data()); }

}  // namespace

CudaBackend::CudaBackend(std::unique_ptr<cuda::DeviceState> device) : device_(std::move(device)) {}

CudaBackend::~CudaBackend() = default;

absl::StatusOr<std::unique_ptr<CudaBackend>> CudaBackend::Create(const cuda::DeviceOptions& options) {
  auto device = std::make_unique<cuda::DeviceState>(options);
  const absl::Status status = device->Start();
  if (!status.ok()) return status;
  std::unique_ptr<CudaBackend> backend(new CudaBackend(std::move(device)));
  absl::StatusOr<CudaMemory> olds =
      CudaMemory::Allocate(MemoryKind::kDevice, kMaxLogitChanges * int64_t{sizeof(float)});
  if (!olds.ok()) return olds.status();
  absl::StatusOr<CudaMemory> selected =
      CudaMemory::Allocate(MemoryKind::kPinnedHost, kMaxSelections * int64_t{sizeof(SelectedToken)});
  if (!selected.ok()) return selected.status();
  backend->changed_logits_ = *std::move(olds);
  backend->selected_ = *std::move(selected);
  return backend;
}

bool CudaBackend::batch_invariant() const { return device_->options.batch_invariant; }

absl::StatusOr<std::unique_ptr<Weights>> CudaBackend::Prepare(const WeightView& view) {
  auto all = PrepareTogether({view});
  if (!all.ok()) return all.status();
  return std::move((*all)[0]);
}

absl::StatusOr<std::vector<std::unique_ptr<Weights>>> CudaBackend::PrepareTogether(absl::Span<const WeightView> views) {
  int64_t bytes = 0;
  for (const WeightView& view : views) {
    if (view.rows > 1 && view.columns % cuda::kSmallProductAlignment != 0) {
      return absl::UnimplementedError(absl::StrCat("a matrix of ", view.rows, " x ", view.columns,
                                                   ": on CUDA, columns are a multiple of ",
                                                   cuda::kSmallProductAlignment));
    }
    bytes += cuda::WeightUpload::BytesOf(view);
  }
  absl::StatusOr<CudaMemory> allocated = CudaMemory::Allocate(MemoryKind::kDevice, bytes);
  if (!allocated.ok()) return allocated.status();
  const auto memory = std::make_shared<CudaMemory>(*std::move(allocated));
  std::vector<std::unique_ptr<Weights>> all;
  uint8_t* to = memory->as<uint8_t>();
  for (const WeightView& view : views) {
    const absl::Status status = device_->upload->Upload(view, to);
    if (!status.ok()) return status;
    all.push_back(std::make_unique<CudaWeights>(view, memory, to));
    to += cuda::WeightUpload::BytesOf(view);
  }
  return absl::StatusOr<std::vector<std::unique_ptr<Weights>>>(std::move(all));
}

absl::StatusOr<std::unique_ptr<Buffer>> CudaBackend::Allocate(int64_t element_count) {
  return AllocateBuffer(element_count * int64_t{sizeof(uint16_t)}, /*floats=*/false);
}

absl::StatusOr<std::vector<std::unique_ptr<Buffer>>> CudaBackend::AllocateTogether(int64_t rows,
                                                                                   absl::Span<const int64_t> sizes) {
  int64_t stride = 0;
  for (const int64_t size : sizes) {
    if (size % cuda::kSmallProductAlignment != 0) return Backend::AllocateTogether(rows, sizes);
    stride += size;
  }
  absl::StatusOr<CudaMemory> allocated =
      CudaMemory::Allocate(MemoryKind::kDevice, rows * stride * int64_t{sizeof(uint16_t)});
  if (!allocated.ok()) return allocated.status();
  const auto memory = std::make_shared<CudaMemory>(*std::move(allocated));
  std::vector<std::unique_ptr<Buffer>> all;
  uint16_t* data = memory->as<uint16_t>();
  for (const int64_t size : sizes) {
    all.push_back(std::make_unique<CudaBuffer>(memory, data, size, stride));
    data += size;
  }
  return absl::StatusOr<std::vector<std::unique_ptr<Buffer>>>(std::move(all));
}

absl::StatusOr<std::unique_ptr<Buffer>> CudaBackend::AllocateFloats(int64_t element_count) {
  const int64_t bytes = element_count * int64_t{sizeof(float)};
  if (bytes > device_->host_result.bytes()) {
    absl::StatusOr<CudaMemory> host = CudaMemory::Allocate(MemoryKind::kPinnedHost, bytes);
    if (!host.ok()) return host.status();
    device_->host_result = *std::move(host);
  }
  return AllocateBuffer(bytes, /*floats=*/true);
}

absl::Status CudaBackend::SetRope(absl::Span<const float> frequencies) {
  const size_t bytes = frequencies.size() * sizeof(float);
  absl::StatusOr<CudaMemory> memory = CudaMemory::Allocate(MemoryKind::kDevice, static_cast<int64_t>(bytes));
  if (!memory.ok()) return memory.status();
  device_->frequencies = *std::move(memory);
  return CudaStatus(cudaMemcpyAsync(device_->frequencies.as<void>(), frequencies.data(), bytes, cudaMemcpyHostToDevice,
                                    device_->stream),
                    "rope's frequencies");
}

absl::Status CudaBackend::AllocateKv(const KvShape& shape) { return device_->AllocateKv(shape); }

int64_t CudaBackend::kv_block_bytes() const { return device_->kv_shape.block_elements() * int64_t{kv_element_bytes()}; }

absl::Status CudaBackend::CopyKvToHost(absl::Span<const KvBlockCopy> copies) {
  return device_->transfer->ToHost(device_->kv.as<std::byte>(), kv_block_bytes(), copies);
}

absl::Status CudaBackend::CopyKvFromHost(absl::Span<const KvBlockCopy> copies) {
  return device_->transfer->FromHost(copies, kv_block_bytes(), device_->kv.as<std::byte>());
}

void CudaBackend::BeginStep(absl::Span<const Segment> segments) {
  Ready();
  device_->BeginStep(segments);
}

void CudaBackend::Embed(const Weights& table, absl::Span<const int32_t> tokens, Buffer& output) {
  cuda::DeviceState& device = *device_;
  if (!Ready()) return;
  const int32_t* indices =
      device.recording != nullptr ? device.recording->tokens() : device.Put(tokens.data(), tokens.size());
  if (!device.status.ok()) return;
  device.Check(cuda::GatherRows(CudaWeights::Matrix(table), indices, static_cast<int64_t>(tokens.size()),
                                static_cast<int32_t>(table.columns()), Data(output), device.stream),
               "embedding");
}

void CudaBackend::GatherRows(const Buffer& x, absl::Span<const int32_t> indices, int32_t size, Buffer& output) {
  cuda::DeviceState& device = *device_;
  if (!Ready()) return;
  const int32_t* places =
      device.recording != nullptr ? device.recording->outputs() : device.Put(indices.data(), indices.size());
  if (!device.status.ok()) return;
  device.Check(
      cuda::GatherRows(Data(x), places, static_cast<int64_t>(indices.size()), size, Data(output), device.stream),
      "gather");
}

void CudaBackend::RmsNorm(const Weights& weight, float epsilon, const Buffer& x, int32_t rows, Buffer& output) {
  if (!Ready()) return;
  const int64_t size = weight.columns();
  // Rows may be the heads of wider ones; then x is the output.
  const int64_t width = CudaBuffer::From(x).Width(size);
  const cuda::RowLayout layout = {static_cast<int32_t>(width / size), CudaBuffer::From(x).Stride(size)};
  device_->Check(cuda::RmsNorm(nullptr, CudaWeights::Vector(weight), epsilon, rows, static_cast<int32_t>(size), layout,
                               const_cast<uint16_t*>(Data(x)), Data(output), device_->stream),
                 "RMS norm");
}

void CudaBackend::AddRmsNorm(const Weights& weight, float epsilon, const Buffer& delta, int32_t rows, Buffer& x,
                             Buffer& output) {
  if (!Ready()) return;
  device_->Check(cuda::RmsNorm(Data(delta), CudaWeights::Vector(weight), epsilon, rows,
                               static_cast<int32_t>(weight.columns()), {}, Data(x), Data(output), device_->stream),
                 "RMS norm");
}

std::vector<CudaBackend::WholeProduct> CudaBackend::Unite(absl::Span<const Product> products, const Buffer& x) const {
  std::vector<WholeProduct> all;
  const int64_t columns = products[0].weights->columns();
  for (const Product& product : products) {
    const CudaBuffer& output = CudaBuffer::From(*product.output);
    const int64_t size = product.weights->rows();
    const uint16_t* weights = CudaWeights::Matrix(*product.weights);
    if (!all.empty() && !output.floats()) {
      WholeProduct& last = all.back();
      const int64_t end = last.shape.size;
      if (weights == last.weights + end * columns && output.data() == static_cast<uint16_t*>(last.output) + end &&
          output.Stride(size) == last.shape.output_stride && last.shape.output_stride >= end + size) {
        last.shape.size += static_cast<int32_t>(size);
        continue;
      }
    }
    all.push_back({{static_cast<int32_t>(size), static_cast<int32_t>(columns), CudaBuffer::From(x).Stride(columns),
                    output.Stride(size), output.floats()},
                   weights,
                   output.data()});
  }
  return all;
}

bool CudaBackend::IsSmall(const WholeProduct& product, int32_t rows) const {
  const bool aligned = product.shape.size % cuda::kSmallProductAlignment == 0 &&
                       product.shape.output_stride % cuda::kSmallProductAlignment == 0;
  return !aligned || (rows <= cuda::kSmallProductRows && !batch_invariant());
}

void CudaBackend::MatMul(absl::Span<const Product> products, const Buffer& x, int32_t rows) {
  if (!Ready()) return;
  std::vector<cuda::SmallProductMatrix> few;
  for (const WholeProduct& product : Unite(products, x)) {
    if (!IsSmall(product, rows)) {
      device_->Check(device_->products->Multiply(product.shape, product.weights, Data(x), rows, product.output));
      continue;
    }
    few.push_back(cuda::FewRowsOf(product.shape, product.weights, product.output));
  }
  const int32_t columns = static_cast<int32_t>(products[0].weights->columns());
  device_->Check(
      cuda::SmallProducts(std::move(few), Data(x), CudaBuffer::From(x).Stride(columns), rows, columns, device_->stream),
      "product of few rows");
}

void CudaBackend::GatedMatMul(const Product& gate, const Product& up, const Buffer& x, int32_t rows) {
  if (!Ready()) return;
  std::vector<WholeProduct> products = Unite({gate, up}, x);
  if (products.size() != 1) return Backend::GatedMatMul(gate, up, x, rows);
  WholeProduct& both = products[0];
  if (!IsSmall(both, rows)) {
    both.shape.gated = true;
    device_->Check(device_->products->Multiply(both.shape, both.weights, Data(x), rows, both.output));
    return;
  }
  const int32_t columns = both.shape.columns;
  const int32_t size = both.shape.size / 2;
  for (int32_t row = 0; row < rows; row += cuda::kSmallProductRows) {
    const int32_t count = std::min(rows - row, cuda::kSmallProductRows);
    uint16_t* output = static_cast<uint16_t*>(both.output) + row * both.shape.output_stride;
    device_->Check(cuda::SmallGatedProduct({both.weights, size, output, nullptr, both.shape.output_stride},
                                           Data(x) + row * both.shape.x_stride, both.shape.x_stride, count, columns,
                                           device_->stream),
                   "gated product of few rows");
  }
}

bool CudaBackend::PassLayer(const LayerPassage& passage, int32_t rows) {
  cuda::DeviceState& device = *device_;
  if (rows > cuda::kFusedLayerRows || !device.FusesLayers(rows)) return false;
  const std::vector<WholeProduct> gate_up = Unite({passage.gate, passage.up}, *passage.normed);
  std::vector<WholeProduct> next;
  if (!passage.next_inputs.empty()) next = Unite(passage.next_inputs, *passage.normed);
  if (gate_up.size() != 1 || next.size() > 1) return false;
  const auto matrix = [](const Weights& weights) {
    return cuda::FusedMatrix{CudaWeights::Matrix(weights), static_cast<int32_t>(weights.rows()),
                             static_cast<int32_t>(weights.columns())};
  };
  cuda::FusedLayer layer;
  layer.rows = rows;
  layer.attention_output = matrix(*passage.attention_output);
  layer.gate_up = {gate_up[0].weights, gate_up[0].shape.size, gate_up[0].shape.columns};
  layer.down = matrix(*passage.down);
  layer.feed_forward_norm = CudaWeights::Vector(*passage.feed_forward_norm);
  layer.epsilon = passage.epsilon;
  layer.attention = Data(*passage.attention);
  layer.attention_stride = CudaBuffer::From(*passage.attention).Stride(layer.attention_output.columns);
  layer.hidden = Data(*passage.hidden);
  layer.normed = Data(*passage.normed);
  layer.gated = static_cast<uint16_t*>(gate_up[0].output);
  layer.gated_stride = gate_up[0].shape.output_stride;
  if (!next.empty()) {
    layer.next_norm = CudaWeights::Vector(*passage.next_norm);
    layer.next_inputs = {next[0].weights, next[0].shape.size, next[0].shape.columns};
    layer.inputs = static_cast<uint16_t*>(next[0].output);
    layer.inputs_stride = next[0].shape.output_stride;
  }
  if (!cuda::ServesFusedLayer(layer)) return false;
  if (!Ready()) return true;
  device.fused_a_layer = true;
  device.Grow(cuda::FusedLayerPartialFloats(layer) * int64_t{sizeof(float)}, &device.layer_partials);
  device.Grow(cuda::kFusedLayerTickets * int64_t{sizeof(uint32_t)}, &device.layer_tickets);
  layer.partials = device.layer_partials.as<float>();
  layer.tickets = device.layer_tickets.as<uint32_t>();
  if (device.status.ok()) device.Check(cuda::LaunchFusedLayer(layer, device.stream), "a fused layer");
  return true;
}

absl::Status CudaBackend::Tune(absl::Span<const std::vector<Product>> alike, bool gated, Buffer& x, int32_t max_rows) {
  const std::vector<WholeProduct> first = Unite(alike[0], x);
  for (size_t i = 0; i < first.size(); ++i) {
    if (IsSmall(first[i], max_rows)) continue;
    std::vector<const uint16_t*> weights;
    for (const std::vector<Product>& products : alike) weights.push_back(Unite(products, x)[i].weights);
    cuda::ProductShape shape = first[i].shape;
    shape.gated = gated && first.size() == 1;
    const absl::Status status = device_->products->Tune(shape, weights, Data(x), first[i].output, max_rows);
    if (!status.ok()) return status;
  }
  return Synchronize();
}

absl::Status CudaBackend::TuneMatMul(absl::Span<const std::vector<Product>> alike, Buffer& x, int32_t max_rows) {
  return Tune(alike, /*gated=*/false, x, max_rows);
}

absl::Status CudaBackend::TuneGatedMatMul(absl::Span<const std::vector<Product>> alike, Buffer& x, int32_t max_rows) {
  return Tune(alike, /*gated=*/true, x, max_rows);
}

void CudaBackend::RopeAndStore(int32_t layer, int32_t head_count, Buffer& q, Buffer& k, const Buffer& v) {
  if (!Ready()) return;
  const int64_t kv_size = int64_t{device_->kv_shape.kv_head_count} * device_->kv_shape.head_size;
  // Here, so that attention, which begins early, is behind a kernel that waits for the tables.
  device_->PlanStep(head_count, /*awaited=*/true);
  pending_ = {layer,   head_count,
              Data(q), CudaBuffer::From(q).Stride(int64_t{head_count} * device_->kv_shape.head_size),
              Data(k), CudaBuffer::From(k).Stride(kv_size),
              Data(v), CudaBuffer::From(v).Stride(kv_size)};
  if (!device_->StoresInDecode(head_count)) Ready();
}

bool CudaBackend::Ready() {
  cuda::DeviceState& device = *device_;
  const PendingRope rope = std::exchange(pending_, PendingRope());
  if (rope.layer >= 0 && device.status.ok()) {
    device.Check(
        cuda::RopeAndStore(device.device_rows, device.row_count, rope.head_count, device.frequencies.as<float>(),
                           device.Layer(rope.layer), {rope.q_stride, rope.k_stride, rope.v_stride}, rope.q, rope.k,
                           rope.v, device.stream),
        "rope");
  }
  return device.status.ok();
}

void CudaBackend::Attention(int32_t layer, int32_t head_count, const Buffer& q, Buffer& output) {
  cuda::DeviceState& device = *device_;
  cuda::DecodeRope rope;
  if (pending_.layer == layer && pending_.head_count == head_count && pending_.q == Data(q)) {
    rope = {device.frequencies.as<float>(),
            pending_.k,
            pending_.v,
            pending_.k_stride,
            pending_.v_stride,
            device.Layer(layer)};
    pending_ = PendingRope();
  }
  if (!Ready()) return;
  device.PlanStep(head_count, /*awaited=*/false);
  if (!device.status.ok()) return;
  cuda::AttentionInput input;
  input.blocks = device.device_blocks;
  input.kv = device.Layer(layer);
  input.head_count = head_count;
  input.q = Data(q);
  input.q_stride = CudaBuffer::From(q).Stride(int64_t{head_count} * device.kv_shape.head_size);
  input.output = Data(output);
  input.partials = device.partials.as<float>();
  input.tickets = device.tickets.as<uint32_t>();
  input.items = device.prefill_items;
  input.item_count = static_cast<int32_t>(device.plan.prefill.size());
  device.Check(device.UsesHopper() ? cuda::HopperAttention(input, device.kv_map, layer, device.stream)
                                   : cuda::PrefillAttention(input, device.stream),
               "attention of many");
  if (!device.SharesDecode(head_count)) {
    input.items = device.decode_items;
    input.item_count = device.decode_item_count;
    device.Check(cuda::DecodeAttention(input, device.stream), "attention of few");
  } else if (device.decode_shares != nullptr) {
    device.Check(cuda::HopperDecode({device.decode_shares, device.decode_units, device.device_blocks, head_count,
                                     input.q, input.q_stride, input.output, device.decode_partials.as<float>(),
                                     device.decode_tickets.as<uint32_t>(), rope},
                                    device.decode_map, layer, device.places(), device.stream),
                 "attention of few, shared out");
  }
}

void CudaBackend::SwiGlu(const Buffer& up, int32_t rows, int32_t size, Buffer& gate) {
  if (!Ready()) return;
  device_->Check(cuda::SwiGlu(Data(up), rows, size, CudaBuffer::From(gate).Stride(size), Data(gate), device_->stream),
                 "SwiGLU");
}

void CudaBackend::AddBias(const Weights& bias, int32_t rows, Buffer& x) {
  if (!Ready()) return;
  const int32_t size = static_cast<int32_t>(bias.columns());
  device_->Check(
      cuda::AddBias(CudaWeights::Vector(bias), rows, size, CudaBuffer::From(x).Stride(size), Data(x), device_->stream),
      "bias");
}

void CudaBackend::Add(const Buffer& y, int64_t count, Buffer& x) {
  if (!Ready()) return;
  device_->Check(cuda::Add(Data(y), count, Data(x), device_->stream), "addition");
}

absl::StatusOr<absl::Span<const int32_t>> CudaBackend::DrawTokens(const Buffer& logits, int32_t first_row, int32_t size,
                                                                  absl::Span<const Draw> draws) {
  cuda::DeviceState& device = *device_;
  const int32_t rows = static_cast<int32_t>(draws.size());
  device.Grow(int64_t{rows} * cuda::LogitsPieces(size) * int64_t{sizeof(cuda::LogitsPiece)}, &device.drawing);
  const Draw* device_draws = device.Put(draws.data(), draws.size());
  // The kernel writes to the host's memory itself: a copy would wait for those of KV that are on their way.
  int32_t* tokens = device.host_tokens.as<int32_t>();
  if (rows * int64_t{sizeof(int32_t)} > device.host_tokens.bytes()) {
    return absl::InvalidArgumentError(absl::StrCat(rows, " tokens to draw; at most ", device.host_tokens.bytes() / 4));
  }
  if (device.status.ok()) {
    const float* first = static_cast<const float*>(CudaBuffer::From(logits).data()) + int64_t{first_row} * size;
    device.Check(cuda::DrawTokens(first, rows, size, device_draws, device.drawing.as<cuda::LogitsPiece>(), tokens,
                                  device.stream),
                 "drawing tokens");
  }
  if (device.watch != nullptr) device.watch->End();
  const absl::Status status = Synchronize();
  if (!status.ok()) return status;
  return absl::MakeConstSpan(tokens, draws.size());
}

int32_t CudaBackend::max_logit_changes() const { return kMaxLogitChanges; }

absl::StatusOr<absl::Span<const Backend::SelectedToken>> CudaBackend::SelectTokens(
    Buffer& logits, int32_t first_row, int32_t size, absl::Span<const Selection> selections,
    absl::Span<const LogitChange> changes) {
  if (selections.size() > kMaxSelections || changes.size() > kMaxLogitChanges) {
    return absl::InvalidArgumentError(absl::StrCat(selections.size(), " tokens to select with ", changes.size(),
                                                   " changes; at most ", kMaxSelections, " and ", kMaxLogitChanges));
  }
  cuda::DeviceState& device = *device_;
  const Selection* device_selections = device.Put(selections.data(), selections.size());
  const LogitChange* device_changes = device.Put(changes.data(), changes.size());
  // The kernel writes to the host's memory itself: a copy would wait for those of KV that are on their way.
  auto* selected = selected_.as<SelectedToken>();
  if (device.status.ok()) {
    float* first = static_cast<float*>(CudaBuffer::From(logits).data()) + int64_t{first_row} * size;
    device.Check(cuda::SelectTokens(first, static_cast<int32_t>(selections.size()), size, device_selections,
                                    device_changes, changed_logits_.as<float>(), selected, device.stream),
                 "selecting tokens");
  }
  const absl::Status status = Synchronize();
  if (!status.ok()) return status;
  return absl::MakeConstSpan(selected, selections.size());
}

int64_t CudaBackend::free_memory_bytes() const { return cuda::FreeDeviceBytes(); }

int64_t CudaBackend::total_memory_bytes() const { return cuda::TotalDeviceBytes(); }

absl::StatusOr<std::shared_ptr<std::byte>> CudaBackend::AllocateHost(int64_t bytes) {
  absl::StatusOr<CudaMemory> memory = CudaMemory::Allocate(MemoryKind::kPinnedHost, bytes);
  if (!memory.ok()) return memory.status();
  const auto owner = std::make_shared<CudaMemory>(*std::move(memory));
  return std::shared_ptr<std::byte>(owner, owner->as<std::byte>());
}

absl::Status CudaBackend::Record(int32_t rows, absl::FunctionRef<void()> ask) { return device_->Record(rows, ask); }

bool CudaBackend::Replay(absl::Span<const Segment> segments, absl::Span<const int32_t> tokens,
                         absl::Span<const int32_t> output_rows) {
  Ready();
  return device_->Replay(segments, tokens, output_rows);
}

double CudaBackend::LastStepSeconds() const { return device_->watch != nullptr ? device_->watch->Seconds() : -1; }

absl::Status CudaBackend::Synchronize() {
  Ready();
  device_->Check(cudaStreamSynchronize(device_->stream), "the step");
  return std::exchange(device_->status, absl::OkStatus());
}

absl::StatusOr<absl::Span<const float>> CudaBackend::ToHost(const Buffer& floats, int64_t count) {
  cuda::DeviceState& device = *device_;
  Ready();
  float* host = device.host_result.as<float>();
  const size_t bytes = static_cast<size_t>(count) * sizeof(float);
  if (device.status.ok()) {
    device.Check(cudaMemcpyAsync(host, CudaBuffer::From(floats).data(), bytes, cudaMemcpyDeviceToHost, device.stream),
                 "results");
  }
  const absl::Status status = Synchronize();
  if (!status.ok()) return status;
  return absl::MakeConstSpan(host, static_cast<size_t>(count));
}

absl::StatusOr<std::unique_ptr<Buffer>> CudaBackend::AllocateBuffer(int64_t bytes, bool floats) {
  absl::StatusOr<CudaMemory> memory = CudaMemory::Allocate(MemoryKind::kDevice, bytes);
  if (!memory.ok()) return memory.status();
  return std::make_unique<CudaBuffer>(*std::move(memory), floats);
}

absl::Status CudaBackend::Copy(const void* from, void* to, int64_t bytes) {
  if (Ready()) {
    device_->Check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, device_->stream), "copy");
  }
  return Synchronize();
}

absl::Status CudaBackend::Read(const Buffer& buffer, absl::Span<float> values) {
  const CudaBuffer& from = CudaBuffer::From(buffer);
  if (from.floats()) return Copy(from.data(), values.data(), values.size() * sizeof(float));
  std::vector<__nv_bfloat16> elements(values.size());
  const int64_t width = from.Width(static_cast<int64_t>(values.size()));
  const int64_t stride = from.Stride(width);
  absl::Status status;
  for (int64_t first = 0; first < static_cast<int64_t>(values.size()); first += width) {
    status.Update(Copy(Data(buffer) + first / width * stride, &elements[static_cast<size_t>(first)],
                       width * int64_t{sizeof(__nv_bfloat16)}));
  }
  for (size_t i = 0; i < values.size(); ++i) values[i] = __bfloat162float(elements[i]);
  return status;
}

absl::Status CudaBackend::Write(absl::Span<const float> values, Buffer& buffer) {
  const CudaBuffer& to = CudaBuffer::From(buffer);
  if (to.floats()) return Copy(values.data(), to.data(), values.size() * sizeof(float));
  std::vector<__nv_bfloat16> elements(values.size());
  for (size_t i = 0; i < values.size(); ++i) elements[i] = __float2bfloat16_rn(values[i]);
  const int64_t width = to.Width(static_cast<int64_t>(values.size()));
  const int64_t stride = to.Stride(width);
  absl::Status status;
  for (int64_t first = 0; first < static_cast<int64_t>(values.size()); first += width) {
    status.Update(Copy(&elements[static_cast<size_t>(first)], Data(buffer) + first / width * stride,
                       width * int64_t{sizeof(__nv_bfloat16)}));
  }
  return status;
}

}  // namespace fermata::kernels
