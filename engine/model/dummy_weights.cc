#include "engine/model/dummy_weights.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

// From: Marsaglia, "Xorshift RNGs", 2003.
uint64_t Next(uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

// FNV-1a (Fowler, Noll, Vo): never 0 in practice, and made odd so that it cannot be.
uint64_t SeedOf(absl::string_view name) {
  uint64_t hash = 14695981039346656037ull;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211ull;
  return hash | 1;
}

uint16_t Bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>(bits >> 16);
}

}  // namespace

absl::StatusOr<HostTensor> DummyWeights::Take(absl::string_view name, const std::vector<int64_t>& shape) {
  int64_t count = 1;  // cannot overflow: no dimension is above 2^24, and there are two at most
  for (const int64_t extent : shape) count *= extent;
  std::shared_ptr<uint16_t> values(new (std::nothrow) uint16_t[count], std::default_delete<uint16_t[]>());
  if (values == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path_, ": no memory for tensor \"", name, "\" of ", count, " elements"));
  }
  const bool norm = absl::StrContains(name, "norm");
  const bool bias = absl::EndsWith(name, ".bias");
  // Uniform in [-width, width) has the deviation width / sqrt(3).
  const float width = std::sqrt(3.0f / static_cast<float>(shape.back()));
  uint64_t state = SeedOf(name);
  for (int64_t i = 0; i < count; ++i) {
    float value = norm ? 1.0f : 0.0f;
    if (!norm && !bias) value = width * (static_cast<float>(Next(state) >> 40) / 8388608.0f - 1.0f);
    values.get()[i] = Bf16(value);
  }
  element_count_ += count;
  const auto* data = reinterpret_cast<const uint8_t*>(values.get());
  return HostTensor{.type = TensorType::kBF16, .shape = shape, .data = data, .owner = std::move(values)};
}

}  // namespace fermata
