// Tokens from logits on the device, so that no logits travel.

#ifndef FERMATA_KERNELS_CUDA_DRAW_TOKENS_H_
#define FERMATA_KERNELS_CUDA_DRAW_TOKENS_H_

#include <cstdint>

#include "kernels/backend.h"

// As the CUDA runtime declares it, so that plain C++ need not include its headers.
struct CUstream_st;

namespace fermata::kernels::cuda {

// What is found of a piece of a row.
struct LogitsPiece {
  float maximum;  // minus infinity: nothing is above it
  float sum;      // of exp((logit - maximum) / temperature)
  int32_t best;   // the first place of the maximum; -1: there is a NaN
};

// How many pieces rows of `size` have.
int32_t LogitsPieces(int32_t size);

// tokens[r] = the token that draws[r] draws from logits[r], as Backend::DrawTokens() says; a row's depends on that row
// and draw alone. logits: [rows][size], tokens: [rows], pieces: [rows][LogitsPieces(size)] to work with; all, `draws`
// too, are device memory. At most 65535 rows. Asynchronous on `stream`; returns the first launch's cudaError_t that is
// not 0 (0: launched). No rows are no launch.
int DrawTokens(const float* logits, int32_t rows, int32_t size, const Backend::Draw* draws, LogitsPiece* pieces,
               int32_t* tokens, CUstream_st* stream);

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_DRAW_TOKENS_H_
