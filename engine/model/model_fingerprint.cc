#include "engine/model/model_fingerprint.h"

#include <xxhash.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kEndBytes = 1 << 20;

absl::StatusOr<uint64_t> HashFile(const fs::path& path, uint64_t seed) {
  std::error_code error;
  const uint64_t size = fs::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  if (error || !file) return absl::NotFoundError(absl::StrCat("cannot read ", path.string()));
  std::string bytes(std::min(size, kEndBytes), '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  uint64_t hash = XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed ^ size);
  file.seekg(static_cast<std::streamoff>(size - bytes.size()));
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file) return absl::UnavailableError(absl::StrCat("cannot read ", path.string()));
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), hash);
}

}  // namespace

absl::StatusOr<std::string> ModelFingerprint(const std::string& path) {
  std::error_code error;
  uint64_t hash = 0;
  std::vector<fs::path> files;
  if (!fs::is_directory(path, error)) {
    files.emplace_back(path);
  } else {
    for (const fs::directory_entry& entry : fs::directory_iterator(path, error)) {
      const std::string extension = entry.path().extension().string();
      if (extension == ".json" || extension == ".safetensors") files.push_back(entry.path());
    }
    if (error) return absl::UnavailableError(absl::StrCat("cannot read ", path, ": ", error.message()));
    std::sort(files.begin(), files.end());
  }
  for (const fs::path& file : files) {
    if (files.size() > 1) {
      const std::string name = file.filename().string();
      hash = XXH3_64bits_withSeed(name.data(), name.size(), hash);
    }
    const absl::StatusOr<uint64_t> next = HashFile(file, hash);
    if (!next.ok()) return next.status();
    hash = *next;
  }
  return absl::StrCat(absl::Hex(hash, absl::kZeroPad16));
}

}  // namespace fermata
