// Generations in order: those that run, or those that wait.

#ifndef FERMATA_ENGINE_CORE_GENERATION_QUEUE_H_
#define FERMATA_ENGINE_CORE_GENERATION_QUEUE_H_

#include <cstdint>

#include "absl/container/btree_set.h"
#include "engine/core/check.h"
#include "engine/core/generation.h"
#include "engine/core/order_key.h"

namespace fermata {

// An ordered set, O(log n) for each change; iterating from the front meets the most urgent first. Keys are stored
// beside the pointers, so that finding a place does not touch the generations. Borrows them: they must outlive their
// stay.
class GenerationQueue {
 public:
  struct Entry {
    OrderKey order;
    Generation* generation = nullptr;

    friend bool operator<(const Entry& a, const Entry& b) { return a.order < b.order; }
  };
  using const_iterator = absl::btree_set<Entry>::const_iterator;

  // REQUIRES: not in the queue yet.
  void Insert(Generation& generation) {
    const bool inserted = entries_.insert({generation.order, &generation}).second;
    FERMATA_CHECK(inserted);
  }

  // REQUIRES: in the queue.
  void Erase(const Generation& generation) {
    const size_t erased = entries_.erase({generation.order, nullptr});
    FERMATA_CHECK(erased == 1);
  }

  bool Contains(const Generation& generation) const { return entries_.contains({generation.order, nullptr}); }

  bool empty() const { return entries_.empty(); }
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  const_iterator begin() const { return entries_.begin(); }
  const_iterator end() const { return entries_.end(); }

 private:
  absl::btree_set<Entry> entries_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_GENERATION_QUEUE_H_
