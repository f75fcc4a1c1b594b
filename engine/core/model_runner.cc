#include "engine/core/model_runner.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

// Of a page, so that files can be read into it directly.
constexpr size_t kAlignment = 4096;

absl::Status NoCopies() { return absl::UnimplementedError("this model's KV cannot be copied"); }

}  // namespace

absl::StatusOr<std::shared_ptr<std::byte>> ModelRunner::AllocateHostKv(int64_t bytes) {
  const size_t whole = (static_cast<size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = std::aligned_alloc(kAlignment, whole);
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " bytes of KV in the host"));
  }
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory), std::free);
}

absl::Status ModelRunner::CopyKvToHost(absl::Span<const KvCopy>) { return NoCopies(); }

absl::Status ModelRunner::CopyKvFromHost(absl::Span<const KvCopy>) { return NoCopies(); }

}  // namespace fermata
