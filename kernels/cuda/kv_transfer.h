// Blocks of the KV cache to and from the host, beside the steps.

#ifndef FERMATA_KERNELS_CUDA_KV_TRANSFER_H_
#define FERMATA_KERNELS_CUDA_KV_TRANSFER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

// Owns a stream for each direction, so that the two meet neither each other nor the steps. Any thread; each call asks
// for all its copies at once and returns when they are done. Host memory that is pinned moves at the speed of the bus.
class KvTransfer {
 public:
  static absl::StatusOr<std::unique_ptr<KvTransfer>> Create();
  ~KvTransfer();
  KvTransfer(const KvTransfer&) = delete;
  KvTransfer& operator=(const KvTransfer&) = delete;

  // `pool` is device memory: block b begins at pool + b * block_bytes. INTERNAL if a copy failed.
  absl::Status ToHost(const std::byte* pool, int64_t block_bytes, absl::Span<const Backend::KvBlockCopy> copies);
  absl::Status FromHost(absl::Span<const Backend::KvBlockCopy> copies, int64_t block_bytes, std::byte* pool);

 private:
  KvTransfer() = default;

  CUstream_st* to_host_ = nullptr;
  CUstream_st* from_host_ = nullptr;
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_KV_TRANSFER_H_
