#include "engine/model/gguf_cursor.h"

#include <limits>
#include <utility>
#include <vector>

namespace fermata {
namespace {

// Type tags of the format.
enum GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

template <typename T>
absl::StatusOr<GgufValue> AsInteger(const absl::StatusOr<T>& value) {
  if (!value.ok()) return value.status();
  if constexpr (std::is_same_v<T, uint64_t>) {
    if (*value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return absl::InvalidArgumentError(absl::StrCat("integer ", *value, " is too large"));
    }
  }
  return GgufValue(static_cast<int64_t>(*value));
}

template <typename T>
absl::StatusOr<GgufValue> AsDouble(const absl::StatusOr<T>& value) {
  if (!value.ok()) return value.status();
  return GgufValue(static_cast<double>(*value));
}

// The empty array for elements of the kind of `element`, and how to add to it.
struct ArrayBuilder {
  GgufValue array;
  void Begin(const GgufValue& element, size_t count) {
    std::visit(
        [&](const auto& typed) {
          using T = std::decay_t<decltype(typed)>;
          if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double> || std::is_same_v<T, bool> ||
                        std::is_same_v<T, std::string>) {
            std::vector<T> empty;
            empty.reserve(count);
            array = std::move(empty);
          }
        },
        element);
  }
  void Add(GgufValue element) {
    std::visit(
        [&](auto& typed) {
          using T = std::decay_t<decltype(typed)>;
          if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double> || std::is_same_v<T, bool> ||
                        std::is_same_v<T, std::string>) {
            std::get<std::vector<T>>(array).push_back(std::move(typed));
          }
        },
        element);
  }
};

}  // namespace

absl::StatusOr<std::string> GgufCursor::ReadString() {
  const absl::StatusOr<uint64_t> size = Read<uint64_t>();
  if (!size.ok()) return size.status();
  if (*size > left()) return Truncated(*size);
  std::string text(reinterpret_cast<const char*>(bytes_.data() + position_), *size);
  position_ += *size;
  return text;
}

absl::StatusOr<GgufValue> GgufCursor::ReadValue() {
  const absl::StatusOr<uint32_t> type = Read<uint32_t>();
  if (!type.ok()) return type.status();
  return *type == kArray ? ReadArray() : ReadScalar(*type);
}

absl::StatusOr<GgufValue> GgufCursor::ReadScalar(uint32_t type) {
  switch (type) {
    case kUint8:
      return AsInteger(Read<uint8_t>());
    case kInt8:
      return AsInteger(Read<int8_t>());
    case kUint16:
      return AsInteger(Read<uint16_t>());
    case kInt16:
      return AsInteger(Read<int16_t>());
    case kUint32:
      return AsInteger(Read<uint32_t>());
    case kInt32:
      return AsInteger(Read<int32_t>());
    case kUint64:
      return AsInteger(Read<uint64_t>());
    case kInt64:
      return AsInteger(Read<int64_t>());
    case kFloat32:
      return AsDouble(Read<float>());
    case kFloat64:
      return AsDouble(Read<double>());
    case kBool: {
      const absl::StatusOr<uint8_t> value = Read<uint8_t>();
      if (!value.ok()) return value.status();
      return GgufValue(*value != 0);
    }
    case kString: {
      absl::StatusOr<std::string> text = ReadString();
      if (!text.ok()) return text.status();
      return GgufValue(*std::move(text));
    }
    default:
      return absl::InvalidArgumentError(absl::StrCat("value of unknown type ", type, " before byte ", position_));
  }
}

absl::StatusOr<GgufValue> GgufCursor::ReadArray() {
  const absl::StatusOr<uint32_t> type = Read<uint32_t>();
  if (!type.ok()) return type.status();
  if (*type == kArray) return absl::InvalidArgumentError("an array of arrays is not served");
  const absl::StatusOr<uint64_t> count = Read<uint64_t>();
  if (!count.ok()) return count.status();
  // Each element takes a byte at least: a count beyond that is not believed, so that it cannot make us allocate.
  if (*count > left()) return Truncated(*count);
  ArrayBuilder builder{std::vector<int64_t>()};
  for (uint64_t i = 0; i < *count; ++i) {
    absl::StatusOr<GgufValue> element = ReadScalar(*type);
    if (!element.ok()) return element.status();
    if (i == 0) builder.Begin(*element, *count);
    builder.Add(*std::move(element));
  }
  return std::move(builder.array);
}

}  // namespace fermata
