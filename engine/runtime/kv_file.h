// The form of a parked generation in a file: what another process of the same model can go on from.
//
//   header        kHeaderBytes, little-endian: magic, version, sizes, and checksums of what follows
//   record        the ParkedGeneration and the model's fingerprint
//   checksums     one for each block
//   (padding)     up to a multiple of kAlignment
//   blocks        block_count * block_bytes, as the device has them
//
// Checksums are XXH3 in 64 bits (xxHash). The header is written last, so that a torn file has none. Versioned: a file
// of another version is refused, never guessed at.

#ifndef FERMATA_ENGINE_RUNTIME_KV_FILE_H_
#define FERMATA_ENGINE_RUNTIME_KV_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/core/parked_generation.h"

namespace fermata {

inline constexpr int64_t kKvFileHeaderBytes = 64;
inline constexpr int64_t kKvFileAlignment = 4096;
inline constexpr uint32_t kKvFileVersion = 1;

// All that stands before the blocks.
struct KvFileHead {
  std::string fingerprint;  // of the model and of the form of its KV
  ParkedGeneration parked;
  int64_t block_bytes = 0;
  std::vector<uint64_t> block_checksums;  // one for each block

  int64_t block_count() const { return static_cast<int64_t>(block_checksums.size()); }
};

// Where the blocks begin, for a head of that many bytes.
int64_t KvFileDataOffset(int64_t head_bytes);

// The bytes before the blocks, without padding.
std::string EncodeKvFileHead(const KvFileHead& head);

// What `bytes`, the beginning of a file of `file_bytes`, say. INVALID_ARGUMENT if it is no such file or of another
// version, DATA_LOSS if it is torn or changed. Never crashes, whatever the bytes are.
absl::StatusOr<KvFileHead> DecodeKvFileHead(absl::string_view bytes, int64_t file_bytes);

// How many bytes DecodeKvFileHead() needs, from the first kKvFileHeaderBytes of a file. Errors likewise.
absl::StatusOr<int64_t> KvFileHeadBytes(absl::string_view header, int64_t file_bytes);

uint64_t KvChecksum(absl::Span<const std::byte> bytes);

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_KV_FILE_H_
