#include <cuda_runtime.h>

#include "kernels/cuda/bf16_ops.cuh"
#include "kernels/cuda/select_tokens.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kCuts = 7;  // keys that are tried at once

// Weights are whole numbers of 2^-40 of the largest one's: sums of them are the same in any order.
constexpr float kOne = 1099511627776.0f;

using Number = unsigned long long;

// In the order of floats; 0 and -0 alike.
__device__ uint32_t KeyOf(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

__device__ float ValueOf(uint32_t key) { return __uint_as_float((key >> 31) != 0 ? key & 0x7fffffffu : ~key); }

template <int kCount>
__device__ void SumOverBlock(Number (&values)[kCount]) {
  __shared__ Number shared[kWarps][kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
      values[i] += __shfl_xor_sync(kAllLanes, values[i], distance);
    }
    if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize][i] = values[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = 0;
    for (int w = 0; w < kWarps; ++w) values[i] += shared[w][i];
  }
  __syncthreads();
}

// One row, as the whole block sees it. All threads call its functions together and get the same answers.
class Row {
 public:
  __device__ Row(const float* logits, int32_t size) : logits_(logits), size_(size) {}

  // Finds the largest logit. False: one is NaN, or none or an infinite one is the largest.
  __device__ bool FindLargest() {
    __shared__ uint32_t largest;
    __shared__ bool has_nan;
    if (threadIdx.x == 0) {
      largest = 0;
      has_nan = false;
    }
    __syncthreads();
    uint32_t own = 0;
    bool nan = false;
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < size_; i += kThreads) {
      nan |= isnan(logits_[i]);
      own = max(own, KeyOf(logits_[i]));
    }
    own = __reduce_max_sync(kAllLanes, own);
    if (threadIdx.x % kWarpSize == 0) atomicMax(&largest, own);
    if (nan) has_nan = true;
    __syncthreads();
    largest_key_ = largest;
    largest_ = ValueOf(largest);
    const bool good = !has_nan && !isinf(largest_) && size_ > 0;
    __syncthreads();
    return good;
  }

  __device__ uint32_t largest_key() const { return largest_key_; }
  __device__ float largest() const { return largest_; }
  __device__ void set_temperature(float temperature) { inverse_ = 1.0f / temperature; }

  __device__ Number Weight(float logit) const { return __float2ull_rn(kOne * expf((logit - largest_) * inverse_)); }

  // Of all weights that are `least` at least.
  __device__ Number Total(Number least) const {
    Number sum[1] = {0};
#pragma unroll 8
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < size_; i += kThreads) {
      const Number weight = Weight(logits_[i]);
      sum[0] += weight >= least ? weight : 0;
    }
    SumOverBlock(sum);
    return sum[0];
  }

  // Of all that are above `key`.
  __device__ Number WeightAbove(uint32_t key) const {
    const uint32_t beyond[1] = {key + 1};
    Number sum[1];
    SumFrom<false>(beyond, sum);
    return sum[0];
  }

  // The logits from the largest on, lower tokens first among equals, until more than `bound` are together (of weight,
  // or with kCounts simply of them): `last` is the key of the last one, `of_last` how many of that key are among them,
  // and `sum` what they come to. REQUIRES: all together are more than `bound`.
  struct Prefix {
    uint32_t last;
    Number of_last;
    Number sum;
  };
  template <bool kCounts>
  __device__ Prefix FirstAbove(Number bound) const {
    uint32_t low = 0;
    uint32_t high = largest_key_;
    while (low < high) {
      uint32_t cuts[kCuts];
#pragma unroll
      for (int i = 0; i < kCuts; ++i) {
        const uint64_t part = (static_cast<uint64_t>(high - low) * (i + 1) + kCuts) / (kCuts + 1);
        cuts[i] = low + static_cast<uint32_t>(part);
      }
      Number sums[kCuts];
      SumFrom<kCounts>(cuts, sums);
      uint32_t next_high = high;
#pragma unroll
      for (int i = kCuts - 1; i >= 0; --i) {
        if (sums[i] <= bound) next_high = cuts[i] - 1;
      }
#pragma unroll
      for (int i = 0; i < kCuts; ++i) {
        if (sums[i] > bound) low = cuts[i];
      }
      high = next_high;
    }
    uint32_t beyond[1] = {low + 1};
    Number above[1];
    SumFrom<kCounts>(beyond, above);
    const Number each = kCounts ? 1 : max(Weight(ValueOf(low)), Number{1});
    const Number of_last = (bound - above[0]) / each + 1;
    return {low, of_last, above[0] + of_last * each};
  }

  // The `nth` (from 1) token of this key.
  __device__ int32_t NthOf(uint32_t key, Number nth) const {
    __shared__ int32_t found;
    __shared__ int32_t before[kWarps];
    Number seen = 0;
    for (int32_t first = 0; first < size_; first += kThreads) {
      const int32_t i = first + static_cast<int32_t>(threadIdx.x);
      const bool is = i < size_ && KeyOf(logits_[i]) == key;
      const int count = __syncthreads_count(is);
      if (seen + count < nth) {
        seen += count;
        continue;
      }
      const unsigned votes = __ballot_sync(kAllLanes, is);
      const int lane = threadIdx.x % kWarpSize;
      if (lane == 0) before[threadIdx.x / kWarpSize] = __popc(votes);
      __syncthreads();
      Number rank = seen + __popc(votes & ((2u << lane) - 1));
      for (int w = 0; w < static_cast<int>(threadIdx.x) / kWarpSize; ++w) rank += before[w];
      if (is && rank == nth) found = i;
      __syncthreads();
      break;
    }
    const int32_t token = found;
    __syncthreads();
    return token;
  }

  // Calls `take` on one thread for each logit above `key`, in any order.
  template <typename Take>
  __device__ void Above(uint32_t key, Take take) const {
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < size_; i += kThreads) {
      if (KeyOf(logits_[i]) > key) take(i, logits_[i]);
    }
    __syncthreads();
  }

  __device__ int32_t size() const { return size_; }

 private:
  // For each cut: all from its key on.
  template <bool kCounts, int kCount>
  __device__ void SumFrom(const uint32_t (&cuts)[kCount], Number (&sums)[kCount]) const {
#pragma unroll
    for (int c = 0; c < kCount; ++c) sums[c] = 0;
#pragma unroll 8
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < size_; i += kThreads) {
      const float logit = logits_[i];
      const uint32_t key = KeyOf(logit);
      const Number value = kCounts ? 1 : Weight(logit);
#pragma unroll
      for (int c = 0; c < kCount; ++c) sums[c] += key >= cuts[c] ? value : 0;
    }
    SumOverBlock(sums);
  }

  const float* logits_;
  const int32_t size_;
  uint32_t largest_key_ = 0;
  float largest_ = 0.0f;
  float inverse_ = 1.0f;
};

// Writes over the logits that are to be changed, in the sampler's order; the old ones are kept.
__device__ void Change(float* logits, const Backend::LogitChange* changes, int32_t count, float* olds) {
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < count; i += kThreads) {
    const Backend::LogitChange change = changes[i];
    float logit = logits[change.token];
    olds[i] = logit;
    logit = __fadd_rn(logit, change.bias);
    if (change.repetition != 1.0f) {
      logit = logit > 0.0f ? __fdiv_rn(logit, change.repetition) : __fmul_rn(logit, change.repetition);
    }
    logits[change.token] = __fsub_rn(logit, change.penalty);
  }
  __syncthreads();
}

// The most likely tokens of the logits as they are, and what they are relative to; both into `result`.
__device__ void FindMostLikely(Row& row, int32_t wanted, double* log_total, Backend::SelectedToken* result) {
  __shared__ int32_t taken;
  __shared__ float logits[Backend::SelectedToken::kMostLikely];
  __shared__ int32_t tokens[Backend::SelectedToken::kMostLikely];
  row.set_temperature(1.0f);
  const Number total = row.Total(0);
  *log_total = row.largest() + log(static_cast<double>(total) / static_cast<double>(kOne));
  const int32_t count = min(wanted, row.size());
  if (count == 0) return;
  const Row::Prefix prefix = row.FirstAbove<true>(static_cast<Number>(count - 1));
  if (threadIdx.x == 0) taken = 0;
  __syncthreads();
  row.Above(prefix.last, [&](int32_t token, float logit) {
    const int32_t place = atomicAdd(&taken, 1);
    logits[place] = logit;
    tokens[place] = token;
  });
  for (Number nth = 1; nth <= prefix.of_last; ++nth) {
    const int32_t token = row.NthOf(prefix.last, nth);
    if (threadIdx.x != 0) continue;
    logits[taken] = ValueOf(prefix.last);
    tokens[taken++] = token;
  }
  if (threadIdx.x != 0) return;
  for (int32_t i = 0; i < count; ++i) {
    int32_t best = i;
    for (int32_t j = i + 1; j < count; ++j) {
      if (logits[j] > logits[best] || (logits[j] == logits[best] && tokens[j] < tokens[best])) best = j;
    }
    const float logit = logits[best];
    const int32_t token = tokens[best];
    logits[best] = logits[i];
    tokens[best] = tokens[i];
    result->most_likely[i] = token;
    result->most_likely_logprobs[i] = static_cast<float>(logit - *log_total);
  }
}

__device__ int32_t Draw(Row& row, const Backend::Selection& selection) {
  if (selection.draw.temperature == 0.0f) return row.NthOf(row.largest_key(), 1);
  row.set_temperature(selection.draw.temperature);
  Number total = row.Total(0);
  if (selection.top_k > 0 && selection.top_k < row.size()) {
    // Their weight: from the count to the key, and so to the sum.
    const Row::Prefix kept = row.FirstAbove<true>(static_cast<Number>(selection.top_k - 1));
    total = min(total, row.WeightAbove(kept.last) + kept.of_last * row.Weight(ValueOf(kept.last)));
  }
  if (selection.top_p < 1.0f) {
    const double share = ceil(static_cast<double>(selection.top_p) * static_cast<double>(total));
    const Number bound = static_cast<Number>(max(share, 1.0)) - 1;
    if (bound < total) total = min(total, row.FirstAbove<false>(bound).sum);
  }
  if (selection.min_p > 0.0f) {
    const double least = ceil(static_cast<double>(selection.min_p) * static_cast<double>(kOne));
    total = min(total, row.Total(static_cast<Number>(max(least, 1.0))));
  }
  const Number bound = min(static_cast<Number>(selection.draw.uniform * static_cast<double>(total)), total - 1);
  const Row::Prefix drawn = row.FirstAbove<false>(bound);
  return row.NthOf(drawn.last, drawn.of_last);
}

// One block a row.
__global__ void __launch_bounds__(kThreads)
    SelectKernel(float* logits, int32_t size, const Backend::Selection* selections, const Backend::LogitChange* changes,
                 float* olds, Backend::SelectedToken* selected) {
  AwaitPrevious();
  logits += static_cast<int64_t>(blockIdx.x) * size;
  selected += blockIdx.x;
  const Backend::Selection selection = selections[blockIdx.x];
  changes += selection.first_change;
  olds += selection.first_change;
  Row row(logits, size);
  double log_total = 0;
  bool good = true;
  if (selection.logprobs >= 0) {
    good = row.FindLargest();
    if (good) FindMostLikely(row, selection.logprobs, &log_total, selected);
  }
  __syncthreads();
  Change(logits, changes, selection.change_count, olds);
  good = good && row.FindLargest();
  if (!good) {
    if (threadIdx.x == 0) selected->token = -1;
    return;
  }
  const int32_t token = Draw(row, selection);
  __shared__ float logit;
  if (threadIdx.x == 0) logit = logits[token];
  __syncthreads();
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < selection.change_count; i += kThreads) {
    if (changes[i].token == token) logit = olds[i];
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  selected->token = token;
  selected->logprob = static_cast<float>(logit - log_total);
}

}  // namespace

int SelectTokens(float* logits, int32_t rows, int32_t size, const Backend::Selection* selections,
                 const Backend::LogitChange* changes, float* olds, Backend::SelectedToken* selected,
                 CUstream_st* stream) {
  if (rows == 0) return cudaSuccess;
  return LaunchEarly(SelectKernel, dim3(rows), kThreads, 0, stream, logits, size, selections, changes, olds, selected);
}

}  // namespace fermata::kernels::cuda
