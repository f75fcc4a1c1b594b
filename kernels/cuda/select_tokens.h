// Tokens from logits on the device where more than a temperature is asked for, so that no logits travel.

#ifndef FERMATA_KERNELS_CUDA_SELECT_TOKENS_H_
#define FERMATA_KERNELS_CUDA_SELECT_TOKENS_H_

#include <cstdint>

#include "kernels/backend.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

// selected[r] = what selections[r] selects from logits[r], as Backend::SelectTokens() says; a row's depends on that row
// and selection alone, to the bit: weights are summed as whole numbers. Rows of `logits` that are changed stay so.
// logits: [rows][size]; `olds` has room for as many floats as there are changes; all but `selected` are device memory,
// `selected` is what the device can write. At most 65535 rows. Asynchronous on `stream`; returns the launch's
// cudaError_t (0: launched). No rows are no launch.
int SelectTokens(float* logits, int32_t rows, int32_t size, const Backend::Selection* selections,
                 const Backend::LogitChange* changes, float* olds, Backend::SelectedToken* selected,
                 CUstream_st* stream);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_SELECT_TOKENS_H_
