// A model in the GGUF format, version 3: metadata, and tensors by name, read in place.

#ifndef FERMATA_ENGINE_MODEL_GGUF_FILE_H_
#define FERMATA_ENGINE_MODEL_GGUF_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/model/gguf_cursor.h"
#include "engine/model/gguf_value.h"
#include "engine/model/mapped_file.h"
#include "engine/model/tensor_type.h"

namespace fermata {

// A tensor in its file. `shape` is innermost first: a matrix of `shape[1]` rows with `shape[0]` elements each.
struct GgufTensor {
  std::string name;
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;  // 1 to 4 dimensions, each at least 1
  int64_t element_count = 0;
  absl::Span<const uint8_t> data;  // lives as long as its file
};

// Immutable after Open(); all methods may be called from any thread. Whatever the file holds, reading it is safe: sizes
// and offsets are checked against the file's end before use.
class GgufFile {
 public:
  // NOT_FOUND; INVALID_ARGUMENT if it is no GGUF file, truncated or inconsistent; UNIMPLEMENTED for another version or
  // byte order, or a tensor type that is not known. Each message names the file and what is wrong.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);

  const std::string& path() const { return path_; }

  // Typed metadata. NOT_FOUND if the key is absent, INVALID_ARGUMENT if its value is of another kind; both name file
  // and key.
  absl::StatusOr<int64_t> GetInt(absl::string_view key) const { return Get<int64_t>(key, "an integer"); }
  absl::StatusOr<bool> GetBool(absl::string_view key) const { return Get<bool>(key, "a bool"); }
  absl::StatusOr<double> GetFloat(absl::string_view key) const { return Get<double>(key, "a float"); }
  absl::StatusOr<std::string> GetString(absl::string_view key) const { return Get<std::string>(key, "a string"); }
  bool Has(absl::string_view key) const { return metadata_.contains(key); }

  // Null if the key is absent or its value is of another kind. Lives as long as this.
  const std::vector<std::string>* FindStrings(absl::string_view key) const {
    return Find<std::vector<std::string>>(key);
  }
  const std::vector<int64_t>* FindInts(absl::string_view key) const { return Find<std::vector<int64_t>>(key); }

  // In the order of the file.
  absl::Span<const GgufTensor> tensors() const { return tensors_; }

  // Null if there is none of this name.
  const GgufTensor* FindTensor(absl::string_view name) const;

 private:
  GgufFile(std::string path, std::unique_ptr<MappedFile> file) : path_(std::move(path)), file_(std::move(file)) {}

  // The parts of Open(). Errors name what is wrong, not the file.
  absl::Status Parse();
  absl::Status ParseMetadata(GgufCursor& cursor, uint64_t count);
  absl::Status ParseTensor(GgufCursor& cursor, std::vector<uint64_t>& offsets);
  absl::Status PlaceTensors(size_t header_size, absl::Span<const uint64_t> offsets);

  template <typename T>
  const T* Find(absl::string_view key) const {
    const auto it = metadata_.find(key);
    return it == metadata_.end() ? nullptr : std::get_if<T>(&it->second);
  }

  template <typename T>
  absl::StatusOr<T> Get(absl::string_view key, absl::string_view kind) const {
    if (const T* value = Find<T>(key)) return *value;
    return Missing(key, kind);
  }

  absl::Status Missing(absl::string_view key, absl::string_view kind) const;

  std::string path_;
  std::unique_ptr<MappedFile> file_;
  absl::flat_hash_map<std::string, GgufValue> metadata_;
  std::vector<GgufTensor> tensors_;
  absl::flat_hash_map<std::string, size_t> tensor_index_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_GGUF_FILE_H_
