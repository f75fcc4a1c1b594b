// Numbers and strings as bytes, and back: little-endian, each string after its length.

#ifndef FERMATA_ENGINE_RUNTIME_BYTE_CODEC_H_
#define FERMATA_ENGINE_RUNTIME_BYTE_CODEC_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace fermata {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are written as memory is");

class ByteWriter {
 public:
  template <typename T>
  void Number(T value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void String(absl::string_view text) {
    Number(static_cast<uint64_t>(text.size()));
    bytes_.append(text.data(), text.size());
  }
  template <typename T>
  void Numbers(const std::vector<T>& values) {
    Number(static_cast<uint64_t>(values.size()));
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  // In nanoseconds; infinity is the largest.
  void Duration(absl::Duration duration) { Number(absl::ToInt64Nanoseconds(duration)); }
  void Time(absl::Time time) { Number(absl::ToUnixNanos(time)); }

  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reads what a ByteWriter wrote. From the first value that is not there on, all are zero and ok() is false.
class ByteReader {
 public:
  explicit ByteReader(absl::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  T Number() {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    T value{};
    if (!Has(sizeof(T))) return value;
    std::memcpy(&value, bytes_.data(), sizeof(T));
    bytes_.remove_prefix(sizeof(T));
    return value;
  }
  // A number that is one of the first `count` values of an enum.
  template <typename E>
  E Enum(int count) {
    const auto value = Number<E>();
    if (static_cast<int64_t>(value) < 0 || static_cast<int64_t>(value) >= count) ok_ = false;
    return ok_ ? value : E{};
  }
  bool Bool() { return Number<uint8_t>() != 0; }
  std::string String() {
    const auto size = Number<uint64_t>();
    if (!Has(size)) return "";
    const std::string text(bytes_.data(), size);
    bytes_.remove_prefix(size);
    return text;
  }
  template <typename T>
  std::vector<T> Numbers() {
    const auto count = Number<uint64_t>();
    if (count > bytes_.size() / sizeof(T)) ok_ = false;
    if (!ok_) return {};
    std::vector<T> values(count);
    if (count > 0) std::memcpy(values.data(), bytes_.data(), count * sizeof(T));
    bytes_.remove_prefix(count * sizeof(T));
    return values;
  }
  absl::Duration Duration() {
    const auto nanoseconds = Number<int64_t>();
    return nanoseconds == INT64_MAX ? absl::InfiniteDuration() : absl::Nanoseconds(nanoseconds);
  }
  absl::Time Time() {
    const auto nanoseconds = Number<int64_t>();
    if (nanoseconds == INT64_MAX) return absl::InfiniteFuture();
    return nanoseconds == INT64_MIN ? absl::InfinitePast() : absl::FromUnixNanos(nanoseconds);
  }

  bool ok() const { return ok_; }
  size_t left() const { return bytes_.size(); }

 private:
  bool Has(uint64_t size) {
    if (size > bytes_.size()) ok_ = false;
    return ok_;
  }

  absl::string_view bytes_;
  bool ok_ = true;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_BYTE_CODEC_H_
