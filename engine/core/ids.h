// Strong types for the numbers and names that the engine deals in.
//
// TokenId and BlockId are scoped enums over int32_t: they cannot be mixed up with counts or with each other, and cost
// nothing. Use `Value(id)` where arithmetic or a wire format needs the number.

#ifndef FERMATA_ENGINE_CORE_IDS_H_
#define FERMATA_ENGINE_CORE_IDS_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace fermata {

// An entry of the model's vocabulary: 0 <= value < vocabulary size.
enum class TokenId : int32_t {};

// A block of the paged KV cache's device pool: 0 <= value < pool size.
enum class BlockId : int32_t {};

// The engine's own number for a generation: unique for the life of the process, rising in order of arrival, so it is
// also the tie-breaker among equal priorities.
enum class GenerationKey : int64_t {};

constexpr int32_t Value(TokenId id) { return static_cast<int32_t>(id); }
constexpr int32_t Value(BlockId id) { return static_cast<int32_t>(id); }
constexpr int64_t Value(GenerationKey key) { return static_cast<int64_t>(key); }

// The name of a generation as clients know it: 1 to 128 characters of [A-Za-z0-9._:-].
class GenerationId {
 public:
  static constexpr int kMaxLength = 128;

  // An id that names nothing. Only Parse() makes others.
  GenerationId() = default;

  // INVALID_ARGUMENT, naming the limit or the offending character, if `text` is not a legal id.
  static absl::StatusOr<GenerationId> Parse(absl::string_view text);

  const std::string& value() const { return value_; }

  friend bool operator==(const GenerationId& a, const GenerationId& b) { return a.value_ == b.value_; }
  friend bool operator!=(const GenerationId& a, const GenerationId& b) { return a.value_ != b.value_; }
  friend bool operator<(const GenerationId& a, const GenerationId& b) { return a.value_ < b.value_; }
  template <typename H>
  friend H AbslHashValue(H h, const GenerationId& id) {
    return H::combine(std::move(h), id.value_);
  }
  friend std::ostream& operator<<(std::ostream& out, const GenerationId& id) { return out << id.value_; }

 private:
  explicit GenerationId(std::string value) : value_(std::move(value)) {}

  std::string value_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_IDS_H_
