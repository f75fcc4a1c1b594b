#include "engine/runtime/kv_tiers.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

absl::Status HoldsNoBlock(const char* flag, int64_t bytes, int64_t block_bytes) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " is ", bytes, ", which holds no block; one takes ", block_bytes));
}

}  // namespace

absl::StatusOr<KvTiers> OpenKvTiers(const KvTierOptions& options, ModelRunner& runner, EngineOptions& engine) {
  KvTiers tiers;
  const int64_t block_bytes = runner.kv_block_bytes();
  if (options.host_bytes > 0) {
    const int64_t blocks = std::min<int64_t>(options.host_bytes / block_bytes, std::numeric_limits<int32_t>::max());
    if (blocks < 1) return HoldsNoBlock("kv_host_bytes", options.host_bytes, block_bytes);
    absl::StatusOr<std::shared_ptr<std::byte>> host = runner.AllocateHostKv(blocks * block_bytes);
    if (!host.ok()) return host.status();
    tiers.host = *std::move(host);
    engine.host_block_count = static_cast<int32_t>(blocks);
  }
  if (!options.disk_dir.empty()) {
    absl::StatusOr<std::unique_ptr<KvDisk>> disk = KvDisk::Open(options.disk_dir, options.fingerprint, block_bytes);
    if (!disk.ok()) return disk.status();
    tiers.disk = *std::move(disk);
    const int64_t bytes = options.disk_bytes > 0 ? options.disk_bytes : tiers.disk->FreeBytes() / 10 * 9;
    engine.disk_block_count = bytes / block_bytes;
    if (engine.disk_block_count < 1) return HoldsNoBlock("kv_disk_bytes", bytes, block_bytes);
  }
  return tiers;
}

}  // namespace fermata
