// Reads fields of a JSON object from a file, with their kinds and ranges checked.

#ifndef FERMATA_ENGINE_MODEL_JSON_READER_H_
#define FERMATA_ENGINE_MODEL_JSON_READER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace fermata {

// The JSON object in `text`. INVALID_ARGUMENT, naming `path`, if it is none. Never throws.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view path);

// The same, of a whole file. NOT_FOUND if there is no such file.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path);

// Null if `object` is no object, or has no such field, or has it as null.
const nlohmann::json* FindField(const nlohmann::json& object, const char* name);

// Remembers the first error; what is read after it is a harmless default. A field that is null counts as absent.
class JsonReader {
 public:
  // Both must outlive this. `path` is what messages begin with.
  JsonReader(const nlohmann::json& object, const std::string& path) : object_(object), path_(path) {}

  bool Has(const char* name) const { return FindField(object_, name) != nullptr; }

  // Between 1 and `max`. IntOr: `otherwise`, checked as well, if it is absent.
  int32_t Int(const char* name, int64_t max);
  int32_t IntOr(const char* name, int64_t otherwise, int64_t max);

  // Finite and at least 0.
  double FloatOr(const char* name, double otherwise);
  bool BoolOr(const char* name, bool otherwise);
  std::string StringOr(const char* name, absl::string_view otherwise);

  // INVALID_ARGUMENT saying `what` unless `condition` holds.
  void Require(bool condition, absl::string_view what);
  void Fail(const absl::Status& status) { status_.Update(status); }

  const absl::Status& status() const { return status_; }
  const std::string& path() const { return path_; }
  const nlohmann::json& object() const { return object_; }

 private:
  int32_t Checked(const char* name, int64_t value, int64_t max);

  const nlohmann::json& object_;
  const std::string& path_;
  absl::Status status_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_JSON_READER_H_
