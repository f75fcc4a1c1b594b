#include "kernels/cuda/make_cuda_backend.h"

namespace fermata::kernels {

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(bool batch_invariant) {
  return absl::UnimplementedError("this program was built without CUDA: build it with --config=cuda");
}

}  // namespace fermata::kernels
