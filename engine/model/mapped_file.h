// A file seen as memory.

#ifndef FERMATA_ENGINE_MODEL_MAPPED_FILE_H_
#define FERMATA_ENGINE_MODEL_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace fermata {

// Read-only, shared with other processes by the system. The file must not shrink while it is mapped.
class MappedFile {
 public:
  // NOT_FOUND if there is no such file; INVALID_ARGUMENT if it is no regular file; else what the system said.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Valid as long as this.
  absl::Span<const uint8_t> bytes() const { return {data_, size_}; }

  // Gives back the memory of `part`, which will hardly be read again; reading it is still right, and brings it back.
  // REQUIRES: `part` lies in the bytes() of a mapped file.
  static void Release(absl::Span<const uint8_t> part);

 private:
  MappedFile(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  const uint8_t* data_;  // null for an empty file
  size_t size_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_MAPPED_FILE_H_
