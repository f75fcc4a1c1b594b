// The disk tier: one file for each parked generation, in a folder of its own.

#ifndef FERMATA_ENGINE_RUNTIME_KV_DISK_H_
#define FERMATA_ENGINE_RUNTIME_KV_DISK_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/core/ids.h"
#include "engine/core/parked_generation.h"

namespace fermata {

// A file is written under another name, synced, and then takes its own: so what has its name is complete, whenever the
// process ends. One that is parked anew takes the place of the older one in the same way. The page cache is used, and
// told afterwards that it need not keep what went through: written in pieces of 8 MiB and synced, 512 MiB took as long
// with it (2.2 GB/s) as around it by O_DIRECT (2.0 GB/s; medians of three with dd, on a virtual disk).
//
// One process at a time has a folder: it is locked. Reading and writing are for one thread at a time.
class KvDisk {
 public:
  // A generation that was found at start.
  struct Found {
    ParkedGeneration parked;
    int64_t block_count = 0;
  };

  // A file that is not accepted, and why. It stays where it is.
  struct Refused {
    std::string path;
    absl::Status status;
  };

  // Opens the folder, which is made if it is not there, and looks through it: at all that stands before the blocks of
  // each file. Leftovers of writes that were cut off are removed. `fingerprint` says which model's KV, in which form,
  // can be used; files of another one are refused. FAILED_PRECONDITION if another process has it, and whatever the
  // system says, naming the folder.
  static absl::StatusOr<std::unique_ptr<KvDisk>> Open(const std::string& folder, const std::string& fingerprint,
                                                      int64_t block_bytes);
  ~KvDisk();

  KvDisk(const KvDisk&) = delete;
  KvDisk& operator=(const KvDisk&) = delete;

  // Those found at start, in the order in which they were made.
  const std::vector<Found>& found() const { return found_; }
  const std::vector<Refused>& refused() const { return refused_; }

  // Room for files on the file system of the folder.
  int64_t FreeBytes() const;

  int64_t block_bytes() const { return block_bytes_; }

  // Gives the blocks [first, first + count) or takes them; a status that is not OK ends the transfer with it.
  using Source = std::function<absl::Status(int64_t first, absl::Span<std::byte> bytes)>;
  using Sink = std::function<absl::Status(int64_t first, absl::Span<const std::byte> bytes)>;

  // Writes and syncs a file with so many blocks. RESOURCE_EXHAUSTED if the disk is full, else what the system says;
  // then an older file of this generation is as it was.
  absl::Status Write(const ParkedGeneration& parked, int64_t block_count, const Source& source);

  // Reads blocks [first, first + count), and compares their checksums: DATA_LOSS. The sink's blocks count from 0.
  absl::Status Read(const GenerationId& id, int64_t first, int64_t count, const Sink& sink);

  // No file any more; none there: no change.
  void Remove(const GenerationId& id);

 private:
  KvDisk(std::string folder, std::string fingerprint, int64_t block_bytes)
      : folder_(std::move(folder)), fingerprint_(std::move(fingerprint)), block_bytes_(block_bytes) {}

  absl::Status Lock();
  absl::Status Scan();
  absl::StatusOr<Found> Look(const std::string& path) const;
  std::string PathOf(const GenerationId& id) const;
  absl::Status WriteBlocks(int fd, const ParkedGeneration& parked, int64_t block_count, const Source& source);

  // How many blocks go through memory at once.
  int64_t ChunkBlocks() const;

  const std::string folder_;
  const std::string fingerprint_;
  const int64_t block_bytes_;
  int lock_fd_ = -1;
  std::vector<Found> found_;
  std::vector<Refused> refused_;
  std::shared_ptr<std::byte> buffer_;  // of ChunkBlocks()
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_KV_DISK_H_
