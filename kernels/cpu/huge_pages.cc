#include "kernels/cpu/huge_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

namespace fermata::kernels {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// Of an arena. Only what is touched is taken.
constexpr size_t kChunk = size_t{64} << 20;

size_t RoundUp(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

}  // namespace

HugePages::HugePages(size_t size) {
  const bool large = size >= kHugePage;
  const size_t whole = large ? RoundUp(size, kHugePage) + kHugePage : std::max<size_t>(size, 1);
  void* const mapping =
      mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return;
  mapping_ = mapping;
  mapping_size_ = whole;
  data_ = static_cast<std::byte*>(mapping);
  size_ = size;
  if (!large) return;
  data_ += RoundUp(reinterpret_cast<uintptr_t>(mapping), kHugePage) - reinterpret_cast<uintptr_t>(mapping);
#ifdef MADV_HUGEPAGE
  // Where the system has none, small ones do.
  madvise(data_, RoundUp(size, kHugePage), MADV_HUGEPAGE);
#endif
}

HugePages::~HugePages() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_size_);
}

HugePages::HugePages(HugePages&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapping_size_(std::exchange(other.mapping_size_, 0)) {}

std::byte* HugeArena::Allocate(size_t size) {
  const size_t rounded = RoundUp(std::max<size_t>(size, 1), kAlignment);
  if (chunks_.empty() || chunks_.back().size() - used_ < rounded) {
    HugePages chunk(std::max(rounded, kChunk));
    if (chunk.data() == nullptr) return nullptr;
    chunks_.push_back(std::move(chunk));
    used_ = 0;
  }
  std::byte* const piece = chunks_.back().data() + used_;
  used_ += rounded;
  return piece;
}

}  // namespace fermata::kernels
