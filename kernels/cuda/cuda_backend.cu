#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_objects.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/kv_transfer.h"
#include "kernels/cuda/matrix_product.h"
#include "kernels/cuda/paged_attention.h"
#include "kernels/cuda/rope_and_store.h"
#include "kernels/cuda/row_kernels.h"
#include "kernels/cuda/small_product.h"
#include "kernels/cuda/staged_upload.h"
#include "kernels/cuda/weight_upload.h"

namespace fermata::kernels {
namespace {

using cuda::CudaBuffer;
using cuda::CudaMemory;
using cuda::CudaStatus;
using cuda::CudaWeights;
using cuda::MemoryKind;

constexpr int64_t kStepTableBytes = 16 << 20;
constexpr int64_t kPartialBytes = 64 << 20;
constexpr int32_t kBlocksPerProcessor = 3;  // of decode attention

const uint16_t* Data(const Buffer& buffer) { return static_cast<const uint16_t*>(CudaBuffer::From(buffer).data()); }
uint16_t* Data(Buffer& buffer) { return static_cast<uint16_t*>(CudaBuffer::From(buffer).data()); }

}  // namespace

// What the operations work with. Its first error is kept until the next synchronization.
class CudaBackend::Implementation {
 public:
  ~Implementation() {
    if (stream != nullptr) {
      cudaStreamSynchronize(stream);
      upload.reset();
      products.reset();
      cudaStreamDestroy(stream);
    }
  }

  absl::Status Start();

  void Check(const absl::Status& result) {
    if (status.ok()) status = result;
  }
  void Check(int error, absl::string_view what) {
    if (error != cudaSuccess) Check(CudaStatus(error, what));
  }

  // On the device; null after an error.
  template <typename T>
  const T* Put(const T* data, size_t count) {
    if (count == 0) return nullptr;
    const absl::StatusOr<const void*> place = tables->Put(data, static_cast<int64_t>(count * sizeof(T)));
    Check(place.status());
    return place.ok() ? static_cast<const T*>(*place) : nullptr;
  }

  cuda::KvLayer Layer(int32_t layer) const {
    return {kv.as<uint16_t>() + layer * kv_shape.layer_elements(), kv_shape.block_elements(), kv_shape.block_tokens,
            kv_shape.kv_head_count, kv_shape.head_size};
  }

  void PlanStep(int32_t head_count);

  absl::StatusOr<std::unique_ptr<Buffer>> AllocateBuffer(int64_t bytes, bool floats) {
    absl::StatusOr<CudaMemory> memory = CudaMemory::Allocate(MemoryKind::kDevice, bytes);
    if (!memory.ok()) return memory.status();
    return std::make_unique<CudaBuffer>(*std::move(memory), floats);
  }

  cudaStream_t stream = nullptr;
  int32_t processors = 0;
  absl::Status status;
  std::unique_ptr<cuda::WeightUpload> upload;
  std::unique_ptr<cuda::MatrixProduct> products;
  std::unique_ptr<cuda::StagedUpload> tables;
  CudaMemory frequencies;
  CudaMemory kv;
  KvShape kv_shape;
  std::unique_ptr<cuda::KvTransfer> transfer;
  CudaMemory partials;
  CudaMemory host_result;  // pinned

  // Of the step.
  std::vector<cuda::KvSegment> segments;
  std::vector<cuda::KvRow> rows;
  std::vector<int32_t> blocks;
  const cuda::KvRow* device_rows = nullptr;
  const int32_t* device_blocks = nullptr;
  cuda::AttentionPlan plan;
  int32_t planned_head_count = 0;  // 0: not planned yet
  const cuda::AttentionItem* decode_items = nullptr;
  const cuda::AttentionItem* prefill_items = nullptr;
};

absl::Status CudaBackend::Implementation::Start() {
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
  upload = std::make_unique<cuda::WeightUpload>(stream);
  absl::StatusOr<std::unique_ptr<cuda::KvTransfer>> streams = cuda::KvTransfer::Create();
  if (!streams.ok()) return streams.status();
  transfer = *std::move(streams);
  absl::StatusOr<std::unique_ptr<cuda::MatrixProduct>> made = cuda::MatrixProduct::Create(stream);
  if (!made.ok()) return made.status();
  products = *std::move(made);
  absl::StatusOr<cuda::StagedUpload> staged = cuda::StagedUpload::Create(kStepTableBytes, stream);
  if (!staged.ok()) return staged.status();
  tables = std::make_unique<cuda::StagedUpload>(*std::move(staged));
  absl::StatusOr<CudaMemory> memory = CudaMemory::Allocate(MemoryKind::kDevice, kPartialBytes);
  if (!memory.ok()) return memory.status();
  partials = *std::move(memory);
  return absl::OkStatus();
}

void CudaBackend::Implementation::PlanStep(int32_t head_count) {
  if (planned_head_count == head_count) return;
  planned_head_count = head_count;
  const cuda::AttentionLimits limits = {cuda::kDecodeQueries, cuda::kPrefillQueries, cuda::kAttentionTile,
                                        processors * kBlocksPerProcessor};
  const int32_t group = head_count / kv_shape.kv_head_count;
  if (group > cuda::kPrefillQueries) {
    Check(absl::UnimplementedError(
        absl::StrCat(group, " query heads to a KV head; on CUDA at most ", cuda::kPrefillQueries, " are served")));
    return;
  }
  cuda::PlanAttention(segments, group, kv_shape.kv_head_count, limits, &plan);
  decode_items = Put(plan.decode.data(), plan.decode.size());
  prefill_items = Put(plan.prefill.data(), plan.prefill.size());
  const int64_t bytes = plan.partial_count * cuda::PartialFloats(head_count, Layer(0)) * int64_t{sizeof(float)};
  if (bytes <= partials.bytes()) return;
  Check(cudaStreamSynchronize(stream), "attention's partial results");
  absl::StatusOr<CudaMemory> memory = CudaMemory::Allocate(MemoryKind::kDevice, bytes);
  Check(memory.status());
  if (memory.ok()) partials = *std::move(memory);
}

CudaBackend::CudaBackend(std::unique_ptr<Implementation> implementation) : implementation_(std::move(implementation)) {}

CudaBackend::~CudaBackend() = default;

absl::StatusOr<std::unique_ptr<CudaBackend>> CudaBackend::Create() {
  auto implementation = std::make_unique<Implementation>();
  const absl::Status status = implementation->Start();
  if (!status.ok()) return status;
  return std::unique_ptr<CudaBackend>(new CudaBackend(std::move(implementation)));
}

absl::StatusOr<std::unique_ptr<Weights>> CudaBackend::Prepare(const WeightView& view) {
  if (view.rows > 1 && view.columns % cuda::kSmallProductAlignment != 0) {
    return absl::UnimplementedError(absl::StrCat("a matrix of ", view.rows, " x ", view.columns,
                                                 ": on CUDA, columns are a multiple of ",
                                                 cuda::kSmallProductAlignment));
  }
  absl::StatusOr<CudaMemory> memory = implementation_->upload->Upload(view);
  if (!memory.ok()) return memory.status();
  return std::make_unique<CudaWeights>(view, *std::move(memory));
}

absl::StatusOr<std::unique_ptr<Buffer>> CudaBackend::Allocate(int64_t element_count) {
  return implementation_->AllocateBuffer(element_count * int64_t{sizeof(uint16_t)}, /*floats=*/false);
}

absl::StatusOr<std::unique_ptr<Buffer>> CudaBackend::AllocateFloats(int64_t element_count) {
  const int64_t bytes = element_count * int64_t{sizeof(float)};
  if (bytes > implementation_->host_result.bytes()) {
    absl::StatusOr<CudaMemory> host = CudaMemory::Allocate(MemoryKind::kPinnedHost, bytes);
    if (!host.ok()) return host.status();
    implementation_->host_result = *std::move(host);
  }
  return implementation_->AllocateBuffer(bytes, /*floats=*/true);
}

absl::Status CudaBackend::SetRope(absl::Span<const float> frequencies) {
  const size_t bytes = frequencies.size() * sizeof(float);
  absl::StatusOr<CudaMemory> memory = CudaMemory::Allocate(MemoryKind::kDevice, static_cast<int64_t>(bytes));
  if (!memory.ok()) return memory.status();
  implementation_->frequencies = *std::move(memory);
  return CudaStatus(cudaMemcpyAsync(implementation_->frequencies.as<void>(), frequencies.data(), bytes,
                                    cudaMemcpyHostToDevice, implementation_->stream),
                    "rope's frequencies");
}

absl::Status CudaBackend::AllocateKv(const KvShape& shape) {
  if (!cuda::ServesHeadSize(shape.head_size)) {
    return absl::UnimplementedError(
        absl::StrCat("heads of ", shape.head_size, " elements; on CUDA 16, 32, 64, 80, 96 and 128 are served"));
  }
  absl::StatusOr<CudaMemory> memory =
      CudaMemory::Allocate(MemoryKind::kDevice, shape.block_count * shape.block_elements() * kv_element_bytes());
  if (!memory.ok()) {
    return absl::ResourceExhaustedError(absl::StrCat("the KV cache of ", shape.block_count, " blocks of ",
                                                     shape.block_tokens, " tokens: ", memory.status().message()));
  }
  implementation_->kv = *std::move(memory);
  implementation_->kv_shape = shape;
  return absl::OkStatus();
}

int64_t CudaBackend::kv_block_bytes() const {
  return implementation_->kv_shape.block_elements() * int64_t{kv_element_bytes()};
}

absl::Status CudaBackend::CopyKvToHost(absl::Span<const KvBlockCopy> copies) {
  return implementation_->transfer->ToHost(implementation_->kv.as<std::byte>(), kv_block_bytes(), copies);
}

absl::Status CudaBackend::CopyKvFromHost(absl::Span<const KvBlockCopy> copies) {
  return implementation_->transfer->FromHost(copies, kv_block_bytes(), implementation_->kv.as<std::byte>());
}

void CudaBackend::BeginStep(absl::Span<const Segment> segments) {
  Implementation& device = *implementation_;
  device.Check(cudaStreamSynchronize(device.stream), "the step before");
  device.tables->Reset();
  device.segments.clear();
  device.rows.clear();
  device.blocks.clear();
  device.planned_head_count = 0;
  const int32_t block_tokens = device.kv_shape.block_tokens;
  for (const Segment& segment : segments) {
    const int32_t end = segment.first_position + segment.row_count;
    device.segments.push_back(
        {segment.first_row, segment.row_count, segment.first_position, static_cast<int32_t>(device.blocks.size())});
    device.blocks.insert(device.blocks.end(), segment.blocks, segment.blocks + (end + block_tokens - 1) / block_tokens);
    for (int32_t position = segment.first_position; position < end; ++position) {
      device.rows.push_back({position, segment.blocks[position / block_tokens]});
    }
  }
  device.device_rows = device.Put(device.rows.data(), device.rows.size());
  device.device_blocks = device.Put(device.blocks.data(), device.blocks.size());
}

void CudaBackend::Embed(const Weights& table, absl::Span<const int32_t> tokens, Buffer& output) {
  Implementation& device = *implementation_;
  const int32_t* indices = device.Put(tokens.data(), tokens.size());
  if (!device.status.ok()) return;
  device.Check(cuda::GatherRows(CudaWeights::Matrix(table), indices, static_cast<int64_t>(tokens.size()),
                                static_cast<int32_t>(table.columns()), Data(output), device.stream),
               "embedding");
}

void CudaBackend::GatherRows(const Buffer& x, absl::Span<const int32_t> indices, int32_t size, Buffer& output) {
  Implementation& device = *implementation_;
  const int32_t* places = device.Put(indices.data(), indices.size());
  if (!device.status.ok()) return;
  device.Check(
      cuda::GatherRows(Data(x), places, static_cast<int64_t>(indices.size()), size, Data(output), device.stream),
      "gather");
}

void CudaBackend::RmsNorm(const Weights& weight, float epsilon, const Buffer& x, int32_t rows, Buffer& output) {
  if (!implementation_->status.ok()) return;
  implementation_->Check(
      cuda::RmsNorm(nullptr, CudaWeights::Vector(weight), epsilon, rows, static_cast<int32_t>(weight.columns()),
                    const_cast<uint16_t*>(Data(x)), Data(output), implementation_->stream),
      "RMS norm");
}

void CudaBackend::AddRmsNorm(const Weights& weight, float epsilon, const Buffer& delta, int32_t rows, Buffer& x,
                             Buffer& output) {
  if (!implementation_->status.ok()) return;
  implementation_->Check(
      cuda::RmsNorm(Data(delta), CudaWeights::Vector(weight), epsilon, rows, static_cast<int32_t>(weight.columns()),
                    Data(x), Data(output), implementation_->stream),
      "RMS norm");
}

void CudaBackend::MatMul(absl::Span<const Product> products, const Buffer& x, int32_t rows) {
  Implementation& device = *implementation_;
  if (!device.status.ok()) return;
  std::vector<cuda::SmallProductMatrix> few;
  for (const Product& product : products) {
    const CudaBuffer& output = CudaBuffer::From(*product.output);
    const int32_t size = static_cast<int32_t>(product.weights->rows());
    const uint16_t* weights = CudaWeights::Matrix(*product.weights);
    if (rows > cuda::kSmallProductRows && size % cuda::kSmallProductAlignment == 0) {
      device.Check(device.products->Multiply(weights, size, static_cast<int32_t>(product.weights->columns()), Data(x),
                                             rows, output.floats(), output.data()));
      continue;
    }
    few.push_back({weights, size, output.floats() ? nullptr : static_cast<uint16_t*>(output.data()),
                   output.floats() ? static_cast<float*>(output.data()) : nullptr});
  }
  const int32_t columns = static_cast<int32_t>(products[0].weights->columns());
  device.Check(cuda::SmallProducts(std::move(few), Data(x), rows, columns, device.stream), "product of few rows");
}

void CudaBackend::RopeAndStore(int32_t layer, int32_t head_count, Buffer& q, Buffer& k, const Buffer& v) {
  Implementation& device = *implementation_;
  if (!device.status.ok()) return;
  device.Check(
      cuda::RopeAndStore(device.device_rows, static_cast<int32_t>(device.rows.size()), head_count,
                         device.frequencies.as<float>(), device.Layer(layer), Data(q), Data(k), Data(v), device.stream),
      "rope");
}

void CudaBackend::Attention(int32_t layer, int32_t head_count, const Buffer& q, Buffer& output) {
  Implementation& device = *implementation_;
  device.PlanStep(head_count);
  if (!device.status.ok()) return;
  cuda::AttentionInput input;
  input.blocks = device.device_blocks;
  input.kv = device.Layer(layer);
  input.head_count = head_count;
  input.q = Data(q);
  input.output = Data(output);
  input.partials = device.partials.as<float>();
  input.items = device.prefill_items;
  input.item_count = static_cast<int32_t>(device.plan.prefill.size());
  device.Check(cuda::PrefillAttention(input, device.stream), "attention of many");
  input.items = device.decode_items;
  input.item_count = static_cast<int32_t>(device.plan.decode.size());
  device.Check(cuda::DecodeAttention(input, device.stream), "attention of few");
  if (device.plan.partial_count > 0) device.Check(cuda::MergePartials(input, device.stream), "attention's merge");
}

void CudaBackend::SwiGlu(const Buffer& up, int32_t rows, int32_t size, Buffer& gate) {
  if (!implementation_->status.ok()) return;
  implementation_->Check(cuda::SwiGlu(Data(up), int64_t{rows} * size, Data(gate), implementation_->stream), "SwiGLU");
}

void CudaBackend::AddBias(const Weights& bias, int32_t rows, Buffer& x) {
  if (!implementation_->status.ok()) return;
  implementation_->Check(cuda::AddBias(CudaWeights::Vector(bias), rows, static_cast<int32_t>(bias.columns()), Data(x),
                                       implementation_->stream),
                         "bias");
}

void CudaBackend::Add(const Buffer& y, int64_t count, Buffer& x) {
  if (!implementation_->status.ok()) return;
  implementation_->Check(cuda::Add(Data(y), count, Data(x), implementation_->stream), "addition");
}

int64_t CudaBackend::free_memory_bytes() const { return cuda::FreeDeviceBytes(); }

absl::Status CudaBackend::Synchronize() {
  implementation_->Check(cudaStreamSynchronize(implementation_->stream), "the step");
  return std::exchange(implementation_->status, absl::OkStatus());
}

absl::StatusOr<absl::Span<const float>> CudaBackend::ToHost(const Buffer& floats, int64_t count) {
  Implementation& device = *implementation_;
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

absl::Status CudaBackend::Copy(const void* from, void* to, int64_t bytes) {
  implementation_->Check(
      cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, implementation_->stream), "copy");
  return Synchronize();
}

absl::Status CudaBackend::Read(const Buffer& buffer, absl::Span<float> values) {
  const CudaBuffer& from = CudaBuffer::From(buffer);
  if (from.floats()) return Copy(from.data(), values.data(), values.size() * sizeof(float));
  std::vector<__nv_bfloat16> elements(values.size());
  const absl::Status status = Copy(from.data(), elements.data(), elements.size() * sizeof(__nv_bfloat16));
  for (size_t i = 0; i < values.size(); ++i) values[i] = __bfloat162float(elements[i]);
  return status;
}

absl::Status CudaBackend::Write(absl::Span<const float> values, Buffer& buffer) {
  const CudaBuffer& to = CudaBuffer::From(buffer);
  if (to.floats()) return Copy(values.data(), to.data(), values.size() * sizeof(float));
  std::vector<__nv_bfloat16> elements(values.size());
  for (size_t i = 0; i < values.size(); ++i) elements[i] = __float2bfloat16_rn(values[i]);
  return Copy(elements.data(), to.data(), elements.size() * sizeof(__nv_bfloat16));
}

}  // namespace fermata::kernels
