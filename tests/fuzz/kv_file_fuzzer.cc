// Goal: whatever a file of the disk tier holds, it is refused or makes a generation that can be. Method: the bytes as
// they are, and once more with sizes and checksums made right, so that what they protect is looked at too.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/core/unpark.h"
#include "engine/runtime/kv_file.h"
#include "glog/logging.h"

namespace fermata {
namespace {

// Where the header keeps them.
constexpr size_t kRecordBytesPlace = 16;
constexpr size_t kBlockCountPlace = 24;
constexpr size_t kRecordChecksumPlace = 40;
constexpr size_t kHeaderChecksumPlace = kKvFileHeaderBytes - sizeof(uint64_t);

uint64_t Checksum(const std::string& bytes, size_t begin, size_t end) {
  return KvChecksum({reinterpret_cast<const std::byte*>(bytes.data()) + begin, end - begin});
}

void Put(std::string& bytes, size_t place, uint64_t value) { std::memcpy(bytes.data() + place, &value, sizeof(value)); }

// The file's size if it is as its header says; else none.
int64_t SizeOf(const std::string& bytes) {
  uint64_t block_count = 0;
  uint64_t block_bytes = 0;
  std::memcpy(&block_count, bytes.data() + kBlockCountPlace, sizeof(block_count));
  std::memcpy(&block_bytes, bytes.data() + kBlockCountPlace + sizeof(uint64_t), sizeof(block_bytes));
  if (block_count > 1000 || block_bytes > 1000) return 0;
  return KvFileDataOffset(static_cast<int64_t>(bytes.size())) + static_cast<int64_t>(block_count * block_bytes);
}

void MakeRight(std::string& bytes) {
  uint64_t block_count = 0;
  std::memcpy(&block_count, bytes.data() + kBlockCountPlace, sizeof(block_count));
  const uint64_t rest = bytes.size() - kKvFileHeaderBytes;
  block_count %= rest / sizeof(uint64_t) + 1;
  Put(bytes, kBlockCountPlace, block_count);
  Put(bytes, kRecordBytesPlace, rest - block_count * sizeof(uint64_t));
  Put(bytes, kRecordChecksumPlace, Checksum(bytes, kKvFileHeaderBytes, bytes.size()));
  Put(bytes, kHeaderChecksumPlace, Checksum(bytes, 0, kHeaderChecksumPlace));
}

void Check(const std::string& bytes, int64_t file_bytes) {
  const absl::StatusOr<KvFileHead> head = DecodeKvFileHead(bytes, file_bytes);
  if (!head.ok()) return;
  // What is accepted means the same when it is written again.
  const absl::StatusOr<KvFileHead> again = DecodeKvFileHead(EncodeKvFileHead(*head), file_bytes);
  CHECK(again.ok()) << again.status();
  CHECK(EncodeKvFileHead(*again) == EncodeKvFileHead(*head));
  if (!CheckParked(head->parked, head->block_count(), 16, 64, 100).ok()) return;
  Generation generation;
  Unpark(head->parked, &generation);
  CHECK_EQ(generation.GivenCount(0, static_cast<int32_t>(generation.context.size())),
           generation.prompt_token_count + generation.appended_token_count);
}

}  // namespace
}  // namespace fermata

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  fermata::Check(bytes, static_cast<int64_t>(size));
  if (size < static_cast<size_t>(fermata::kKvFileHeaderBytes)) return 0;
  fermata::MakeRight(bytes);
  fermata::Check(bytes, fermata::SizeOf(bytes));
  return 0;
}
