// Goal: whatever a model file holds, loading it ends in a model or in a refusal with words; a model that loads
// tokenizes, and computes a step. Method: the input is the file.

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/gguf_file.h"
#include "engine/model/load_model.h"
#include "engine/model/tensor_type.h"
#include "glog/logging.h"

namespace fermata {
namespace {

// A file in memory alone, that has a path as long as this lives.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size) : descriptor_(memfd_create("model.gguf", MFD_CLOEXEC)) {
    PCHECK(descriptor_ >= 0);
    PCHECK(write(descriptor_, data, size) == static_cast<ssize_t>(size));
  }
  ~MemoryFile() { close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return absl::StrCat("/proc/self/fd/", descriptor_); }

 private:
  const int descriptor_;
};

// A tensor has all of its bytes, and they are the file's. The sanitizer knows nothing of a mapped file's end, but one
// that is no longer than a page begins where its page does.
void CheckTensors(const GgufFile& file, size_t file_size) {
  constexpr size_t kPageBytes = 4096;
  for (const GgufTensor& tensor : file.tensors()) {
    CHECK(file.FindTensor(tensor.name) == &tensor);
    const TensorTypeInfo& info = InfoOf(tensor.type);
    CHECK_EQ(tensor.element_count % info.block_elements, 0);
    CHECK_EQ(static_cast<int64_t>(tensor.data.size()), tensor.element_count / info.block_elements * info.block_bytes);
    if (file_size > kPageBytes) continue;
    const size_t begin = reinterpret_cast<uintptr_t>(tensor.data.data()) % kPageBytes;
    CHECK_LE(begin + tensor.data.size(), file_size);
  }
}

void RunStep(const LoadedModel& model) {
  const absl::StatusOr<std::vector<TokenId>> tokens =
      model.tokenizer->Encode("ab", /*parse_special=*/true, /*add_bos=*/true);
  if (!tokens.ok() || tokens->empty() || tokens->size() > 4) return;
  CHECK(model.tokenizer->Decode(*tokens).ok());
  absl::StatusOr<std::unique_ptr<ModelRunner>> runner =
      model.make_runner(/*block_count=*/1, /*block_tokens=*/4, /*max_step_tokens=*/4, /*max_rows=*/1);
  if (!runner.ok()) return;
  SamplingParams sampling;
  const std::vector<BlockId> blocks = {BlockId{0}};
  const std::vector<BatchSlice> slices = {{.context = *tokens,
                                           .prompt_token_count = static_cast<int32_t>(tokens->size()),
                                           .token_count = static_cast<int32_t>(tokens->size()),
                                           .blocks = blocks,
                                           .sample = true,
                                           .sampling = &sampling}};
  StepOutput output;
  if (!(*runner)->Run({.step = 1, .slices = slices}, &output).ok()) return;
  CHECK_EQ(output.sampled.size(), 1u);
  if (!output.sampled[0].status.ok()) return;  // weights may be such that logits are no numbers
  CHECK_GE(Value(output.sampled[0].token), 0);
  CHECK_LT(Value(output.sampled[0].token), model.tokenizer->vocabulary_size());
}

void Run(const uint8_t* data, size_t size) {
  const MemoryFile memory(data, size);
  const absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(memory.path());
  if (!file.ok()) {
    CHECK(!file.status().message().empty());
    return;
  }
  CheckTensors(**file, size);
  // One thread: the fuzzer makes a back end for each input.
  for (const CpuKernels kernels : {CpuKernels::kExact, CpuKernels::kFast}) {
    const absl::StatusOr<LoadedModel> model = LoadModel({.path = memory.path(), .threads = 1, .cpu_kernels = kernels});
    if (model.ok()) {
      RunStep(*model);
    } else {
      CHECK(!model.status().message().empty());
    }
  }
}

}  // namespace
}  // namespace fermata

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fermata::Run(data, size);
  return 0;
}
