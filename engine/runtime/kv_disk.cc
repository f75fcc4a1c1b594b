#include "engine/runtime/kv_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/runtime/kv_file.h"

namespace fermata {
namespace {

constexpr absl::string_view kSuffix = ".kv";
constexpr absl::string_view kUnfinishedSuffix = ".kv.tmp";
constexpr int64_t kChunkBytes = 8 << 20;

absl::Status SystemError(absl::string_view what, const std::string& path) {
  const int error = errno;
  const std::string message = absl::StrCat(what, " ", path, ": ", std::strerror(error));
  if (error == ENOSPC || error == EDQUOT) return absl::ResourceExhaustedError(message);
  return error == ENOENT ? absl::NotFoundError(message) : absl::UnavailableError(message);
}

absl::Status WriteAll(int fd, const char* bytes, int64_t count, int64_t offset, const std::string& path) {
  while (count > 0) {
    const ssize_t written = pwrite(fd, bytes, count, offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return SystemError("cannot write", path);
    bytes += written;
    count -= written;
    offset += written;
  }
  return absl::OkStatus();
}

absl::Status ReadAll(int fd, char* bytes, int64_t count, int64_t offset, const std::string& path) {
  while (count > 0) {
    const ssize_t got = pread(fd, bytes, count, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError("cannot read", path);
    if (got == 0) return absl::DataLossError(absl::StrCat(path, " is torn: it ends too early"));
    bytes += got;
    count -= got;
    offset += got;
  }
  return absl::OkStatus();
}

absl::Status Sync(int fd, const std::string& path) {
  return fsync(fd) == 0 ? absl::OkStatus() : SystemError("cannot sync", path);
}

// So that a name that was changed in it stays so.
absl::Status SyncFolder(const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return SystemError("cannot open", folder);
  const absl::Cleanup close_it = [fd] { close(fd); };
  return Sync(fd, folder);
}

// The head of an open file.
absl::StatusOr<KvFileHead> ReadHead(int fd, const std::string& path, int64_t* head_bytes) {
  struct stat info = {};
  if (fstat(fd, &info) != 0) return SystemError("cannot look at", path);
  std::string bytes(std::min<int64_t>(kKvFileHeaderBytes, info.st_size), '\0');
  absl::Status status = ReadAll(fd, bytes.data(), static_cast<int64_t>(bytes.size()), 0, path);
  if (!status.ok()) return status;
  const absl::StatusOr<int64_t> size = KvFileHeadBytes(bytes, info.st_size);
  if (!size.ok()) return size.status();
  *head_bytes = *size;
  bytes.resize(*size);
  status = ReadAll(fd, bytes.data(), *size, 0, path);
  if (!status.ok()) return status;
  return DecodeKvFileHead(bytes, info.st_size);
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvDisk>> KvDisk::Open(const std::string& folder, const std::string& fingerprint,
                                                     int64_t block_bytes) {
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return SystemError("cannot make", folder);
  std::unique_ptr<KvDisk> disk(new KvDisk(folder, fingerprint, block_bytes));
  absl::Status status = disk->Lock();
  if (status.ok()) status = disk->Scan();
  if (!status.ok()) return status;
  void* buffer = std::aligned_alloc(kKvFileAlignment, KvFileDataOffset(disk->ChunkBlocks() * block_bytes));
  if (buffer == nullptr) return absl::ResourceExhaustedError("no memory for the disk tier's buffer");
  disk->buffer_ = std::shared_ptr<std::byte>(static_cast<std::byte*>(buffer), std::free);
  return disk;
}

KvDisk::~KvDisk() {
  if (lock_fd_ >= 0) close(lock_fd_);
}

int64_t KvDisk::ChunkBlocks() const { return std::max<int64_t>(1, kChunkBytes / block_bytes_); }

absl::Status KvDisk::Lock() {
  const std::string path = absl::StrCat(folder_, "/lock");
  lock_fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_fd_ < 0) return SystemError("cannot open", path);
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("--kv_disk_dir=", folder_, " is in use by another process: give each its own"));
}

absl::Status KvDisk::Scan() {
  DIR* const listing = opendir(folder_.c_str());
  if (listing == nullptr) return SystemError("cannot open", folder_);
  const absl::Cleanup close_it = [listing] { closedir(listing); };
  std::vector<std::string> names;
  while (const dirent* entry = readdir(listing)) names.emplace_back(entry->d_name);
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(folder_, "/", name);
    if (absl::EndsWith(name, std::string(kUnfinishedSuffix))) {
      // Nobody was told that it is there.
      unlink(path.c_str());
      refused_.push_back({path, absl::DataLossError("it was never completed, and is removed")});
      continue;
    }
    if (!absl::EndsWith(name, std::string(kSuffix))) continue;
    absl::StatusOr<Found> found = Look(path);
    if (found.ok()) {
      found_.push_back(*std::move(found));
    } else {
      refused_.push_back({path, found.status()});
    }
  }
  std::stable_sort(found_.begin(), found_.end(),
                   [](const Found& a, const Found& b) { return a.parked.create_time < b.parked.create_time; });
  return absl::OkStatus();
}

absl::StatusOr<KvDisk::Found> KvDisk::Look(const std::string& path) const {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return SystemError("cannot open", path);
  const absl::Cleanup close_it = [fd] { close(fd); };
  int64_t head_bytes = 0;
  absl::StatusOr<KvFileHead> head = ReadHead(fd, path, &head_bytes);
  if (!head.ok()) return head.status();
  if (head->fingerprint != fingerprint_ || (head->block_count() > 0 && head->block_bytes != block_bytes_)) {
    return absl::FailedPreconditionError(
        absl::StrCat("it is of another model or form of KV: \"", head->fingerprint, "\", not \"", fingerprint_, "\""));
  }
  if (PathOf(head->parked.id) != path) return absl::DataLossError("it has another generation's name");
  const int64_t block_count = head->block_count();
  return Found{std::move(head->parked), block_count};
}

std::string KvDisk::PathOf(const GenerationId& id) const { return absl::StrCat(folder_, "/g-", id.value(), kSuffix); }

int64_t KvDisk::FreeBytes() const {
  struct statvfs info = {};
  if (statvfs(folder_.c_str(), &info) != 0) return 0;
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

absl::Status KvDisk::Write(const ParkedGeneration& parked, int64_t block_count, const Source& source) {
  const std::string path = PathOf(parked.id);
  const std::string unfinished = absl::StrCat(folder_, "/g-", parked.id.value(), kUnfinishedSuffix);
  const int fd = open(unfinished.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return SystemError("cannot make", unfinished);
  absl::Status status = WriteBlocks(fd, parked, block_count, source);
  if (status.ok()) status = Sync(fd, unfinished);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
  if (status.ok() && rename(unfinished.c_str(), path.c_str()) != 0) status = SystemError("cannot rename", unfinished);
  if (!status.ok()) {
    unlink(unfinished.c_str());
    return status;
  }
  return SyncFolder(folder_);
}

absl::Status KvDisk::WriteBlocks(int fd, const ParkedGeneration& parked, int64_t block_count, const Source& source) {
  const std::string path = PathOf(parked.id);
  KvFileHead head = {.fingerprint = fingerprint_, .parked = parked, .block_bytes = block_bytes_};
  head.block_checksums.resize(block_count);
  const int64_t begin = KvFileDataOffset(static_cast<int64_t>(EncodeKvFileHead(head).size()));
  // All at once, so that a full disk says so now and not when half is written.
  const int64_t bytes = begin + block_count * block_bytes_;
  if (const int error = posix_fallocate(fd, 0, bytes); error != 0) {
    errno = error;
    return SystemError(absl::StrCat("no room for ", bytes, " bytes in"), path);
  }
  for (int64_t first = 0; first < block_count; first += ChunkBlocks()) {
    const int64_t count = std::min(ChunkBlocks(), block_count - first);
    const absl::Span<std::byte> chunk(buffer_.get(), count * block_bytes_);
    absl::Status status = source(first, chunk);
    if (!status.ok()) return status;
    for (int64_t i = 0; i < count; ++i) {
      head.block_checksums[first + i] = KvChecksum(chunk.subspan(i * block_bytes_, block_bytes_));
    }
    status = WriteAll(fd, reinterpret_cast<const char*>(chunk.data()), static_cast<int64_t>(chunk.size()),
                      begin + first * block_bytes_, path);
    if (!status.ok()) return status;
  }
  const std::string encoded = EncodeKvFileHead(head);
  return WriteAll(fd, encoded.data(), static_cast<int64_t>(encoded.size()), 0, path);
}

absl::Status KvDisk::Read(const GenerationId& id, int64_t first, int64_t count, const Sink& sink) {
  const std::string path = PathOf(id);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return SystemError("cannot open", path);
  const absl::Cleanup close_it = [fd] { close(fd); };
  int64_t head_bytes = 0;
  const absl::StatusOr<KvFileHead> head = ReadHead(fd, path, &head_bytes);
  if (!head.ok()) return head.status();
  if (head->fingerprint != fingerprint_ || first + count > head->block_count()) {
    return absl::DataLossError(absl::StrCat(path, " is another one than was written"));
  }
  const int64_t begin = KvFileDataOffset(head_bytes);
  for (int64_t done = 0; done < count; done += ChunkBlocks()) {
    const int64_t now = std::min(ChunkBlocks(), count - done);
    const absl::Span<std::byte> chunk(buffer_.get(), now * block_bytes_);
    absl::Status status = ReadAll(fd, reinterpret_cast<char*>(chunk.data()), static_cast<int64_t>(chunk.size()),
                                  begin + (first + done) * block_bytes_, path);
    if (!status.ok()) return status;
    for (int64_t i = 0; i < now; ++i) {
      if (KvChecksum(chunk.subspan(i * block_bytes_, block_bytes_)) != head->block_checksums[first + done + i]) {
        return absl::DataLossError(absl::StrCat(path, ": block ", first + done + i, " has a wrong checksum"));
      }
    }
    status = sink(done, chunk);
    if (!status.ok()) return status;
  }
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  return absl::OkStatus();
}

void KvDisk::Remove(const GenerationId& id) { unlink(PathOf(id).c_str()); }

}  // namespace fermata
