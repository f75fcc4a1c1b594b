#include "engine/core/generation_table.h"

#include "engine/core/check.h"

namespace fermata {

Generation& GenerationTable::Insert(const GenerationId& id) {
  auto record = std::make_unique<Generation>();
  Generation& generation = *record;
  generation.key = GenerationKey{next_key_++};
  generation.id = id;
  const bool inserted = by_id_.emplace(id, &generation).second;
  FERMATA_CHECK(inserted);
  // Keys rise, so the newest is always the last.
  by_key_.emplace_hint(by_key_.end(), generation.key, std::move(record));
  return generation;
}

Generation* GenerationTable::Find(const GenerationId& id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : it->second;
}

Generation* GenerationTable::Find(GenerationKey key) const {
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? nullptr : it->second.get();
}

void GenerationTable::Retire(Generation& generation) {
  const absl::Time finish_time = generation.life.finish_time();
  FERMATA_CHECK(!generation.live());
  // In order of finish is in order of age, so the front alone says what is due.
  FERMATA_CHECK(finished_.empty() || finished_.back()->life.finish_time() <= finish_time);
  finished_.push_back(&generation);
}

void GenerationTable::Forget(absl::Time now, std::vector<GenerationKey>* forgotten) {
  while (!finished_.empty() && (finished_count() > max_finished_ || next_forget_time() <= now)) {
    const Generation& oldest = *finished_.front();
    finished_.pop_front();
    const GenerationKey key = oldest.key;  // a copy: erasing by_key_'s entry destroys the record
    forgotten->push_back(key);
    by_id_.erase(oldest.id);
    by_key_.erase(key);
  }
}

absl::Time GenerationTable::next_forget_time() const {
  return finished_.empty() ? absl::InfiniteFuture() : finished_.front()->life.finish_time() + finished_age_;
}

}  // namespace fermata
