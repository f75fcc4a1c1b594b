#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/cuda/weight_upload.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int64_t kStagingBytes = 16 << 20;

int64_t RowBytes(const WeightView& view) {
  return view.columns * static_cast<int64_t>(view.rows == 1 ? sizeof(float) : sizeof(uint16_t));
}

}  // namespace

WeightUpload::~WeightUpload() {
  for (CUevent_st* event : travelled_) {
    if (event == nullptr) continue;
    cudaEventSynchronize(event);
    cudaEventDestroy(event);
  }
}

absl::Status WeightUpload::Prepare() {
  for (int i = 0; i < 2; ++i) {
    if (travelled_[i] != nullptr) continue;
    absl::StatusOr<CudaMemory> staging = CudaMemory::Allocate(MemoryKind::kPinnedHost, kStagingBytes);
    if (!staging.ok()) return staging.status();
    staging_[i] = *std::move(staging);
    const cudaError_t error = cudaEventCreateWithFlags(&travelled_[i], cudaEventDisableTiming);
    if (error != cudaSuccess) return CudaStatus(error, "event");
  }
  return absl::OkStatus();
}

void WeightUpload::FillRows(const WeightView& view, int64_t first, int64_t count, uint8_t* to) {
  const int64_t row_bytes = RowBytes(view);
  if (view.type == WeightType::kBF16 && view.rows > 1) {
    std::memcpy(to, view.row(first), static_cast<size_t>(count * row_bytes));
    return;
  }
  row_.resize(static_cast<size_t>(view.columns));
  for (int64_t r = 0; r < count; ++r, to += row_bytes) {
    DequantizeRow(view, first + r, row_.data());
    if (view.rows == 1) {
      std::memcpy(to, row_.data(), static_cast<size_t>(row_bytes));
      continue;
    }
    auto* elements = reinterpret_cast<__nv_bfloat16*>(to);
    for (int64_t i = 0; i < view.columns; ++i) elements[i] = __float2bfloat16_rn(row_[static_cast<size_t>(i)]);
  }
}

int64_t WeightUpload::BytesOf(const WeightView& view) { return view.rows * RowBytes(view); }

absl::Status WeightUpload::Upload(const WeightView& view, uint8_t* to) {
  const absl::Status prepared = Prepare();
  if (!prepared.ok()) return prepared;
  const int64_t row_bytes = RowBytes(view);
  const int64_t rows_at_once = kStagingBytes / row_bytes;
  if (rows_at_once == 0) {
    return absl::UnimplementedError(
        absl::StrCat("rows of ", view.columns, " weights: more than ", kStagingBytes, " bytes each are not served"));
  }
  for (int64_t first = 0; first < view.rows; first += rows_at_once, next_ ^= 1) {
    const int64_t count = std::min(rows_at_once, view.rows - first);
    cudaError_t error = cudaEventSynchronize(travelled_[next_]);
    if (error != cudaSuccess) return CudaStatus(error, "weights on their way");
    FillRows(view, first, count, staging_[next_].as<uint8_t>());
    error = cudaMemcpyAsync(to + first * row_bytes, staging_[next_].as<void>(), static_cast<size_t>(count * row_bytes),
                            cudaMemcpyHostToDevice, stream_);
    if (error == cudaSuccess) error = cudaEventRecord(travelled_[next_], stream_);
    if (error != cudaSuccess) return CudaStatus(error, "copy weights to the device");
  }
  return absl::OkStatus();
}

}  // namespace fermata::kernels::cuda
