// Reads the little-endian scalars and strings of a GGUF file, never beyond its end.

#ifndef FERMATA_ENGINE_MODEL_GGUF_CURSOR_H_
#define FERMATA_ENGINE_MODEL_GGUF_CURSOR_H_

#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "engine/model/gguf_value.h"

namespace fermata {

// Every method fails with INVALID_ARGUMENT, saying where, if the bytes end too early or make no sense; then nothing
// more may be read.
class GgufCursor {
 public:
  explicit GgufCursor(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }

  template <typename T>
  absl::StatusOr<T> Read() {
    if (left() < sizeof(T)) return Truncated(sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  absl::StatusOr<std::string> ReadString();

  // A type tag, then the value.
  absl::StatusOr<GgufValue> ReadValue();

 private:
  absl::Status Truncated(uint64_t wanted) const {
    return absl::InvalidArgumentError(
        absl::StrCat("truncated: ", wanted, " bytes wanted at byte ", position_, ", ", left(), " are left"));
  }

  absl::StatusOr<GgufValue> ReadScalar(uint32_t type);
  absl::StatusOr<GgufValue> ReadArray();

  absl::Span<const uint8_t> bytes_;
  size_t position_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_GGUF_CURSOR_H_
