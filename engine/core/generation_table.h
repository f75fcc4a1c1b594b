// Every generation that the engine knows, finished ones included.

#ifndef FERMATA_ENGINE_CORE_GENERATION_TABLE_H_
#define FERMATA_ENGINE_CORE_GENERATION_TABLE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "engine/core/generation.h"
#include "engine/core/ids.h"

namespace fermata {

// Owns them. Finds them by id and by key, and forgets finished ones, oldest finish first, by number and by age; until
// then their ids stay taken. Live ones are never forgotten.
class GenerationTable {
 public:
  using Map = absl::btree_map<GenerationKey, std::unique_ptr<Generation>>;

  // At most `max_finished` finished ones are kept, each for `finished_age` after its finish_time().
  GenerationTable(int64_t max_finished, absl::Duration finished_age)
      : max_finished_(max_finished), finished_age_(finished_age) {}

  // Creates a record with this id and a new key. REQUIRES: the id is not known.
  Generation& Insert(const GenerationId& id);

  // nullptr if unknown.
  Generation* Find(const GenerationId& id) const;
  Generation* Find(GenerationKey key) const;

  // Tells that `generation` has just finished. REQUIRES: finish times never go back.
  void Retire(Generation& generation);

  // Forgets what is too much or too old, and appends its keys to *forgotten. Pointers to it dangle afterwards.
  void Forget(absl::Time now, std::vector<GenerationKey>* forgotten);

  // When Forget() has something to do next for age; InfiniteFuture: never.
  absl::Time next_forget_time() const;

  // In order of arrival.
  const Map& all() const { return by_key_; }
  int64_t finished_count() const { return static_cast<int64_t>(finished_.size()); }

 private:
  const int64_t max_finished_;
  const absl::Duration finished_age_;
  int64_t next_key_ = 0;
  Map by_key_;
  absl::flat_hash_map<GenerationId, Generation*> by_id_;
  std::deque<Generation*> finished_;  // in order of finish
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_GENERATION_TABLE_H_
