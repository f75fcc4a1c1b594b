#include "engine/model/json_reader.h"

#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/mapped_file.h"

namespace fermata {

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view path) {
  nlohmann::json value = nlohmann::json::parse(text.begin(), text.end(), /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, ": is no JSON object"));
  return absl::StatusOr<nlohmann::json>(std::move(value));
}

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path) {
  const absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const absl::Span<const uint8_t> bytes = (*file)->bytes();
  return ParseJsonObject({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

const nlohmann::json* FindField(const nlohmann::json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

int32_t JsonReader::Int(const char* name, int64_t max) {
  const nlohmann::json* value = FindField(object_, name);
  if (value == nullptr || !value->is_number_integer()) {
    Require(false, absl::StrCat("\"", name, value == nullptr ? "\" is missing" : "\" is no integer"));
    return 1;
  }
  if (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
    return Checked(name, std::numeric_limits<int64_t>::max(), max);
  }
  return Checked(name, value->get<int64_t>(), max);
}

int32_t JsonReader::IntOr(const char* name, int64_t otherwise, int64_t max) {
  return Has(name) ? Int(name, max) : Checked(name, otherwise, max);
}

double JsonReader::FloatOr(const char* name, double otherwise) {
  const nlohmann::json* value = FindField(object_, name);
  if (value == nullptr) return otherwise;
  const double number = value->is_number() ? value->get<double>() : -1.0;
  Require(std::isfinite(number) && number >= 0, absl::StrCat("\"", name, "\" is no number of at least 0"));
  return status_.ok() ? number : otherwise;
}

bool JsonReader::BoolOr(const char* name, bool otherwise) {
  const nlohmann::json* value = FindField(object_, name);
  if (value == nullptr) return otherwise;
  Require(value->is_boolean(), absl::StrCat("\"", name, "\" is no bool"));
  return value->is_boolean() ? value->get<bool>() : otherwise;
}

std::string JsonReader::StringOr(const char* name, absl::string_view otherwise) {
  const nlohmann::json* value = FindField(object_, name);
  if (value == nullptr) return std::string(otherwise);
  Require(value->is_string(), absl::StrCat("\"", name, "\" is no string"));
  return value->is_string() ? value->get<std::string>() : std::string(otherwise);
}

void JsonReader::Require(bool condition, absl::string_view what) {
  if (!condition) Fail(absl::InvalidArgumentError(absl::StrCat(path_, ": ", what)));
}

int32_t JsonReader::Checked(const char* name, int64_t value, int64_t max) {
  if (value >= 1 && value <= max) return static_cast<int32_t>(value);
  Require(false, absl::StrCat("\"", name, "\" is ", value, "; possible are 1 to ", max));
  return 1;
}

}  // namespace fermata
