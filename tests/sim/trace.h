// The story of a simulation in lines of text: hashed, so that two runs can be compared to the last event, and printed
// when somebody wants to read it.

#ifndef FERMATA_TESTS_SIM_TRACE_H_
#define FERMATA_TESTS_SIM_TRACE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/core/commands.h"
#include "engine/core/model_runner.h"
#include "engine/core/report.h"

namespace fermata {

// One line each, without the end of line.
std::string Describe(const Command& command);
std::string Describe(const BatchSlice& slice);
std::string Describe(const Event& event);
std::string Describe(const Reply& reply);

class Trace {
 public:
  // With `verbose`, lines go to the standard output too.
  explicit Trace(bool verbose) : verbose_(verbose) {}

  void Add(absl::string_view line);
  void Add(const std::vector<Command>& commands);
  void Add(const Batch& batch);
  void Add(const Report& report);

  // Of every line so far, in order.
  uint64_t hash() const { return hash_; }

 private:
  const bool verbose_;
  uint64_t hash_ = 14695981039346656037u;  // FNV-1a
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_TRACE_H_
