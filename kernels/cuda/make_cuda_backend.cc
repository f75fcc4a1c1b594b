#include "kernels/cuda/make_cuda_backend.h"

#include "kernels/cuda/cuda_backend.h"

namespace fermata::kernels {

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(bool batch_invariant) {
  return CudaBackend::Create({.batch_invariant = batch_invariant});
}

}  // namespace fermata::kernels
