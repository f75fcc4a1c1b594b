// Memory in large pages, so that reading much of it is not held up by looking up where each page is.

#ifndef FERMATA_KERNELS_CPU_HUGE_PAGES_H_
#define FERMATA_KERNELS_CPU_HUGE_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fermata::kernels {

// Owns pages straight from the system: zero, taken only when first touched, of 2 MiB where the system gives such
// (Linux: transparent huge pages, "madvise" or "always") and the size allows. Begins at such a page.
class HugePages {
 public:
  // data() is null if there is no memory.
  explicit HugePages(size_t size);
  ~HugePages();
  HugePages(HugePages&& other) noexcept;
  HugePages& operator=(HugePages&&) = delete;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  void* mapping_ = nullptr;
  size_t mapping_size_ = 0;
};

// Hands out pieces that stay until it ends, close together, so that many small ones share large pages. One thread at a
// time.
class HugeArena {
 public:
  static constexpr size_t kAlignment = 64;  // a cache line

  // Zero, aligned; null if there is no memory.
  std::byte* Allocate(size_t size);

 private:
  std::vector<HugePages> chunks_;
  size_t used_ = 0;  // of the last chunk
};

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_HUGE_PAGES_H_
