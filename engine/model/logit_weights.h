// What each token of a row of logits weighs in a random choice.

#ifndef FERMATA_ENGINE_MODEL_LOGIT_WEIGHTS_H_
#define FERMATA_ENGINE_MODEL_LOGIT_WEIGHTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace fermata {

// exp((logit - largest) / temperature), in double, within two units in the last place. Sums are by blocks, in an order
// that depends on the row's length alone, and are the same on AVX2 and AVX-512. One thread.
class LogitWeights {
 public:
  // Weighs a row, which must stay as it is for the calls that follow. `largest` is its largest logit. REQUIRES: no
  // logit is NaN, `largest` is finite, `temperature` is above 0. Sets `weights`, if there is one, to those of all.
  void Assign(absl::Span<const float> logits, float largest, double temperature,
              std::vector<double>* weights = nullptr);

  // Of all weights; at least 1, which is what the largest logit weighs.
  double total() const { return total_; }

  // The first index up to which the weights come to more than `target`; where rounding leaves all of them below it, the
  // last index with a weight. REQUIRES: target is from 0 to total().
  int32_t IndexAt(double target);

 private:
  static constexpr size_t kBlock = 1024;

  // The logits of a block.
  absl::Span<const float> Block(size_t block) const { return logits_.subspan(block * kBlock, kBlock); }

  // Weighs a block into `weights`; returns its sum.
  double Weigh(size_t block, double* weights);

  absl::Span<const float> logits_;
  float largest_ = 0;
  double temperature_ = 1;
  double total_ = 0;
  std::vector<double> sums_;  // of the blocks
  std::array<double, kBlock> block_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_LOGIT_WEIGHTS_H_
