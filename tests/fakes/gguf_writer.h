// Builds GGUF files, whole or broken on purpose.

#ifndef FERMATA_TESTS_FAKES_GGUF_WRITER_H_
#define FERMATA_TESTS_FAKES_GGUF_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/model/tensor_type.h"

namespace fermata {

// Collects metadata and tensors in memory; Finish() lays them out as version 3 of the format does.
class GgufWriter {
 public:
  void AddInt(absl::string_view key, uint32_t value);
  void AddFloat(absl::string_view key, float value);
  void AddBool(absl::string_view key, bool value);
  void AddString(absl::string_view key, absl::string_view value);
  void AddStrings(absl::string_view key, const std::vector<std::string>& values);
  void AddInts(absl::string_view key, const std::vector<int32_t>& values);

  // `shape` innermost first; `data` as the type packs it.
  void AddTensor(absl::string_view name, TensorType type, const std::vector<int64_t>& shape, std::string data);

  // The bytes of the file.
  std::string Finish() const;

 private:
  struct Tensor {
    std::string name;
    TensorType type;
    std::vector<int64_t> shape;
    std::string data;
  };

  void AddKey(absl::string_view key, uint32_t type);

  std::string metadata_;
  uint64_t value_count_ = 0;
  std::vector<Tensor> tensors_;
};

// Writes `bytes` to a new file in the test's own folder and returns its path.
std::string WriteTestFile(const std::string& name, absl::string_view bytes);

}  // namespace fermata

#endif  // FERMATA_TESTS_FAKES_GGUF_WRITER_H_
