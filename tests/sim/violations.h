// Broken promises, as sentences.

#ifndef FERMATA_TESTS_SIM_VIOLATIONS_H_
#define FERMATA_TESTS_SIM_VIOLATIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/ids.h"

namespace fermata {

// Shared by all that watch one simulation. The first is usually the cause of the others.
class Violations {
 public:
  // The step that is named by what is added from now on.
  void set_step(int64_t step) { step_ = step; }

  void Add(const std::string& what) { list_.push_back(absl::StrCat("step ", step_, ": ", what)); }
  void Add(GenerationKey key, const std::string& what) { Add(absl::StrCat("generation #", Value(key), " ", what)); }

  bool empty() const { return list_.empty(); }
  const std::vector<std::string>& list() const { return list_; }

 private:
  int64_t step_ = 0;
  std::vector<std::string> list_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_VIOLATIONS_H_
