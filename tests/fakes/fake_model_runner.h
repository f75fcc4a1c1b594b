// A ModelRunner that believes nothing: it writes every token into its physical KV slot, reads the whole context back
// through the block table, and derives the next token from what it finds there. Wrong bookkeeping of blocks changes the
// output, and is named.
//
// Three uses: the engine's simulation, servers in conformance tests (with before_run as a brake or a gate), and fault
// injection.

#ifndef FERMATA_TESTS_FAKES_FAKE_MODEL_RUNNER_H_
#define FERMATA_TESTS_FAKES_FAKE_MODEL_RUNNER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/core/ids.h"
#include "engine/core/kv_move.h"
#include "engine/core/model_runner.h"

namespace fermata {

struct FakeModelRunnerOptions {
  int32_t block_count = 64;
  int32_t host_block_count = 0;
  int32_t block_tokens = 16;
  int32_t vocabulary_size = 64;
  int32_t max_step_tokens = 2048;
  int32_t max_rows = 4096;

  // What CallsLaunched() says. If so, before_run calls Batch::launched.
  bool calls_launched = false;

  // Called at the start of each step, on the runner's thread; may block. A status that is not OK fails the step.
  std::function<absl::Status(const Batch& batch)> before_run;

  // Called for each row that is sampled; a status that is not OK fails that row.
  std::function<absl::Status(const BatchSlice& slice)> before_sample;
};

class FakeModelRunner : public ModelRunner {
 public:
  explicit FakeModelRunner(FakeModelRunnerOptions options);

  // INTERNAL with the first violation, from then on, if a batch was wrong.
  absl::Status Run(const Batch& batch, StepOutput* output) override;
  bool CallsLaunched() const override { return options_.calls_launched; }

  int64_t kv_block_bytes() const override { return options_.block_tokens * static_cast<int64_t>(sizeof(Slot)); }
  absl::Status CopyKvToHost(absl::Span<const KvCopy> copies) override;
  absl::Status CopyKvFromHost(absl::Span<const KvCopy> copies) override;

  // Without threads or memory of the host: moves what the slots hold, as a copy of KV would; files are kept by
  // generation until they are removed.
  void Copy(const KvMove& move);
  void RemoveFile(const GenerationId& id) { files_.erase(id); }
  int64_t file_count() const { return static_cast<int64_t>(files_.size()); }

  // What was wrong with batches so far; empty if nothing was.
  const std::vector<std::string>& violations() const { return violations_; }

 private:
  struct Slot {
    TokenId token{};
    int64_t position = -1;  // -1: never written
    int64_t step = 0;       // in which it was written
  };

  void CheckBatch(const Batch& batch);
  void Write(const BatchSlice& slice, int64_t step);

  // Compares every slot up to the last computed position with the context, and returns the token that follows from
  // what was found there.
  TokenId ReadBack(const BatchSlice& slice);

  // Null, and a violation, if the block table has no such position or names no block of the pool.
  Slot* SlotAt(const BatchSlice& slice, int64_t position);

  void Violation(const BatchSlice& slice, const std::string& what);

  const FakeModelRunnerOptions options_;
  std::vector<Slot> slots_;                          // [block][slot]
  std::vector<Slot> host_slots_;                     // [block][slot]
  std::map<GenerationId, std::vector<Slot>> files_;  // [block][slot]
  std::vector<std::string> violations_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_FAKES_FAKE_MODEL_RUNNER_H_
