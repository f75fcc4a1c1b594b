// The tiers beside the device's: memory set aside in the host, and files.

#ifndef FERMATA_ENGINE_RUNTIME_KV_TIERS_H_
#define FERMATA_ENGINE_RUNTIME_KV_TIERS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/core/engine_options.h"
#include "engine/core/model_runner.h"
#include "engine/runtime/kv_disk.h"

namespace fermata {

struct KvTierOptions {
  int64_t host_bytes = 0;  // 0: no such tier
  std::string disk_dir;    // empty: no such tier
  int64_t disk_bytes = 0;  // of KV in files; 0: nine tenths of what is free there at start
  std::string fingerprint;
};

struct KvTiers {
  std::shared_ptr<std::byte> host;  // null: none
  std::shared_ptr<KvDisk> disk;     // null: none
};

// Sets both up for the KV of `runner`, and writes into `engine` how many blocks they have. INVALID_ARGUMENT naming the
// flag for one that holds no block, RESOURCE_EXHAUSTED if there is no memory, and what KvDisk::Open() says.
absl::StatusOr<KvTiers> OpenKvTiers(const KvTierOptions& options, ModelRunner& runner, EngineOptions& engine);

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_KV_TIERS_H_
