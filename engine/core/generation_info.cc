#include "engine/core/generation_info.h"

namespace fermata {

absl::string_view Name(KvTier tier) {
  switch (tier) {
    case KvTier::kNone:
      return "NONE";
    case KvTier::kDevice:
      return "DEVICE";
    case KvTier::kHost:
      return "HOST";
    case KvTier::kDisk:
      return "DISK";
  }
  return "unknown";
}

}  // namespace fermata
