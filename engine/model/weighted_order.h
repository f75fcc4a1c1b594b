// Tokens from the most to the least likely one, sorted no further than is asked.

#ifndef FERMATA_ENGINE_MODEL_WEIGHTED_ORDER_H_
#define FERMATA_ENGINE_MODEL_WEIGHTED_ORDER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fermata {

// The order is by logit, the largest first, and by token among equals. Finds the token at which the sum of weights
// passes a target without sorting what comes before it: by sums over buckets of logits, and then by those within the
// bucket that is hit. Takes a time proportional to the number of tokens, however flat their weights are; the result
// depends on what was added alone. Keeps its memory. One thread.
class WeightedOrder {
 public:
  struct Place {
    float logit;
    int32_t token;
    double sum;  // of the weights up to this token, and with it
  };

  void Clear() { items_.clear(); }

  // REQUIRES: tokens come in rising order; the logit is finite, the weight above 0.
  void Add(float logit, int32_t token, double weight) { items_.push_back({logit, token, weight}); }

  size_t size() const { return items_.size(); }

  // The first token in order up to which weights come to at least `target`, or to more than it; the last of all if
  // there is none. REQUIRES: size() > 0.
  Place FirstAtLeast(double target) { return Find(target, /*more=*/false); }
  Place FirstAbove(double target) { return Find(target, /*more=*/true); }

 private:
  struct Item {
    float logit;
    int32_t token;
    double weight;
  };

  Place Find(double target, bool more);

  // Makes near_ the items of one bucket of `from`, which may be near_ itself, and adds to `before` what weighs before
  // it. False if that would not make it smaller.
  bool Narrow(const std::vector<Item>& from, double target, bool more, double* before);

  std::vector<Item> items_;
  std::vector<Item> near_;    // those that may be the one that is looked for, in the order of tokens
  std::vector<double> sums_;  // of buckets
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_WEIGHTED_ORDER_H_
