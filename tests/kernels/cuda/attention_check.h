// Attention, and what stores keys and values for it, of both back ends side by side.

#ifndef FERMATA_TESTS_KERNELS_CUDA_ATTENTION_CHECK_H_
#define FERMATA_TESTS_KERNELS_CUDA_ATTENTION_CHECK_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "tests/kernels/cuda/twins.h"

namespace fermata::kernels {

// Borrows what it is given. Caches are poisoned first, so that reading beyond a context shows.
class AttentionCheck {
 public:
  AttentionCheck(Twins& twins, uint32_t seed, Tally& tally) : twins_(twins), random_(seed), tally_(tally) {}

  // Contexts of `lengths` whose last `counts` tokens are computed in one step, after the others were stored in one.
  // `turn`: whether positions turn queries and keys; else both back ends have the same bits in their caches.
  void Attention(int32_t head_size, int32_t kv_heads, int32_t group, const std::vector<int32_t>& lengths,
                 const std::vector<int32_t>& counts, bool turn);

  // Contexts of `lengths` that go on by a token each, twice: stored and attended to in one go where the back end can.
  void Decode(int32_t head_size, int32_t kv_heads, int32_t group, const std::vector<int32_t>& lengths);

  // Of contexts of `lengths`, tokens around the ends of tiles have the same bits when each is decoded alone, with
  // others before and after it, and in chunks. REQUIRES: the back end is batch-invariant.
  void Invariance(int32_t head_size, int32_t kv_heads, int32_t group, const std::vector<int32_t>& lengths);

 private:
  // What was drawn for a context's tokens, before positions turn it.
  struct Context {
    std::vector<float> q, k, v;
    std::vector<int32_t> blocks;
    int32_t length;
  };
  // Tokens of one in a step.
  struct Part {
    const Context* context;
    int32_t first;
    int32_t count;
  };

  // Contexts with a cache that has all of them.
  std::vector<Context> MakeContexts(int32_t head_size, int32_t kv_heads, int32_t group,
                                    const std::vector<int32_t>& lengths);

  // Stores and attends to these, on CUDA alone, in one step; the results, row after row.
  std::vector<float> Step(int32_t kv_heads, int32_t head_count, const std::vector<Part>& parts);

  // A step with tokens before and after `position`, and with some others of `contexts`; which row it is of.
  std::vector<Part> InCompany(const std::vector<Context>& contexts, const Context& context, int32_t position,
                              int32_t* row);

  // Random rows; their queries, as they were turned, if asked for: the same for both, and the step begun anew.
  void Store(const std::vector<Segment>& segments, int32_t rows, int32_t kv_heads, int32_t group, int32_t head_size,
             Twins::Pair* q_out, const std::string& shape);

  // NaN in every slot.
  void PoisonCache(int32_t block_count, int32_t layers, int32_t kv_heads, int32_t head_size);

  Twins::Pair Random(int64_t count) { return twins_.Make(RandomBf16(count, 1.0f, random_)); }

  void Compare(const std::string& what, const Twins::Pair& pair, double relative, double absolute) {
    tally_.Compare(what, twins_.CudaValues(pair), twins_.CpuValues(pair), relative, absolute);
  }
  void Expect(const std::string& what, bool holds) { tally_.Expect(what, holds); }

  Twins& twins_;
  std::mt19937 random_;
  Tally& tally_;
};

}  // namespace fermata::kernels

#endif  // FERMATA_TESTS_KERNELS_CUDA_ATTENTION_CHECK_H_
