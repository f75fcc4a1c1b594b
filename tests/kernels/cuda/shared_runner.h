// A runner that several engines use one after the other: its pool is allocated once.

#ifndef FERMATA_TESTS_KERNELS_CUDA_SHARED_RUNNER_H_
#define FERMATA_TESTS_KERNELS_CUDA_SHARED_RUNNER_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/core/model_runner.h"

namespace fermata {

// `runner` must outlive it.
class SharedRunner : public ModelRunner {
 public:
  explicit SharedRunner(ModelRunner& runner) : runner_(runner) {}

  absl::Status Run(const Batch& batch, StepOutput* output) override { return runner_.Run(batch, output); }
  bool CallsLaunched() const override { return runner_.CallsLaunched(); }
  int64_t kv_block_bytes() const override { return runner_.kv_block_bytes(); }
  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHostKv(int64_t bytes) override {
    return runner_.AllocateHostKv(bytes);
  }
  absl::Status CopyKvToHost(absl::Span<const KvCopy> copies) override { return runner_.CopyKvToHost(copies); }
  absl::Status CopyKvFromHost(absl::Span<const KvCopy> copies) override { return runner_.CopyKvFromHost(copies); }

 private:
  ModelRunner& runner_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_KERNELS_CUDA_SHARED_RUNNER_H_
