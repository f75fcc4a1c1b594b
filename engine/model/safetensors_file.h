// One .safetensors file: a table of tensors in JSON, and their bytes.

#ifndef FERMATA_ENGINE_MODEL_SAFETENSORS_FILE_H_
#define FERMATA_ENGINE_MODEL_SAFETENSORS_FILE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/model/mapped_file.h"
#include "engine/model/tensor_type.h"

namespace fermata {

struct SafeTensor {
  std::string type_name;       // as the file says: "BF16", ...
  std::vector<int64_t> shape;  // outermost first
  uint64_t begin = 0;          // in the file's data
  absl::Span<const uint8_t> data;
};

// The layout is that of the format's own description (github.com/huggingface/safetensors): 8 bytes of little-endian
// header size, the header, the data. Immutable after Open(). Sizes and offsets are checked before use.
class SafetensorsFile {
 public:
  // NOT_FOUND; INVALID_ARGUMENT, naming the file and what is wrong: no such file, truncated, offsets outside of it or
  // overlapping, sizes that do not fit the shape.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const absl::flat_hash_map<std::string, SafeTensor>& tensors() const { return tensors_; }

 private:
  SafetensorsFile(std::string path, std::unique_ptr<MappedFile> file)
      : path_(std::move(path)), file_(std::move(file)) {}

  absl::Status Parse();
  absl::Status CheckOverlaps() const;

  std::string path_;
  std::unique_ptr<MappedFile> file_;
  absl::flat_hash_map<std::string, SafeTensor> tensors_;
};

// F32, F16 and BF16; nothing for others.
std::optional<TensorType> ServedTensorType(absl::string_view name);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_SAFETENSORS_FILE_H_
