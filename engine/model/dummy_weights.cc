#include "engine/model/dummy_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

namespace fermata {
namespace {

// From: Marsaglia, "Xorshift RNGs", 2003.
uint64_t Next(uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

// So many neighbouring values are made from a seed of their own, so that threads may share the work.
constexpr int64_t kPiece = int64_t{1} << 20;
constexpr int64_t kMaxThreads = 16;

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

// Uniform in [-width, width).
void FillPiece(uint64_t seed, float width, absl::Span<uint16_t> values) {
  uint64_t state = seed | 1;
  for (uint16_t& value : values) value = Bf16(width * (static_cast<float>(Next(state) >> 40) / 8388608.0f - 1.0f));
}

// The same values for any number of threads.
void Fill(uint64_t seed, float width, absl::Span<uint16_t> values) {
  const int64_t pieces = (static_cast<int64_t>(values.size()) + kPiece - 1) / kPiece;
  const int64_t cores = std::max<int64_t>(std::thread::hardware_concurrency(), 1);
  const int64_t count = std::min({pieces, cores, kMaxThreads});
  const auto work = [&](int64_t first) {
    for (int64_t piece = first; piece < pieces; piece += count) {
      FillPiece(seed + static_cast<uint64_t>(piece) * 0x9e3779b97f4a7c15ull, width,
                values.subspan(static_cast<size_t>(piece * kPiece), static_cast<size_t>(kPiece)));
    }
  };
  std::vector<std::thread> threads;
  for (int64_t first = 1; first < count; ++first) threads.emplace_back(work, first);
  work(0);
  for (std::thread& thread : threads) thread.join();
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
  const absl::Span<uint16_t> all(values.get(), static_cast<size_t>(count));
  if (norm || bias) {
    std::fill(all.begin(), all.end(), Bf16(norm ? 1.0f : 0.0f));
  } else {
    // Uniform in [-width, width) has the deviation width / sqrt(3).
    Fill(SeedOf(name), std::sqrt(3.0f / static_cast<float>(shape.back())), all);
  }
  element_count_ += count;
  const auto* data = reinterpret_cast<const uint8_t*>(values.get());
  return HostTensor{.type = TensorType::kBF16, .shape = shape, .data = data, .owner = std::move(values)};
}

}  // namespace fermata
