// The CUDA back end, or why there is none: the same in every build.

#ifndef FERMATA_KERNELS_CUDA_MAKE_CUDA_BACKEND_H_
#define FERMATA_KERNELS_CUDA_MAKE_CUDA_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace fermata::kernels {

// UNIMPLEMENTED if this program was built without --config=cuda, UNAVAILABLE if there is no device. `batch_invariant`:
// it keeps Backend's promise of that name, at a price.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(bool batch_invariant);

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CUDA_MAKE_CUDA_BACKEND_H_
