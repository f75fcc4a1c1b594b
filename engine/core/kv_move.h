// KV on its way from one tier to another. The engine decides; whoever runs the engine copies, beside the steps, and
// says when it is done.

#ifndef FERMATA_ENGINE_CORE_KV_MOVE_H_
#define FERMATA_ENGINE_CORE_KV_MOVE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/core/generation_info.h"
#include "engine/core/ids.h"
#include "engine/core/parked_generation.h"

namespace fermata {

// Rising, from 1. kNoMove: none.
enum class KvMoveId : int64_t {};
inline constexpr KvMoveId kNoMove{0};

// Until it is answered by a KvMoveDone nobody else reads what `target` names or writes what `source` names. Moves of
// one generation never overlap.
struct KvMove {
  KvMoveId id = kNoMove;
  GenerationId generation_id;
  KvTier from = KvTier::kNone;
  KvTier to = KvTier::kNone;

  // How many blocks, and which: ids in the pool of their tier. A file is found by the generation's id, and has no ids.
  int32_t block_count = 0;
  std::vector<BlockId> source;
  std::vector<BlockId> target;

  // From the host to the disk: the blocks of the device that come before `source`, of a generation that is on both.
  std::vector<BlockId> device_source;

  // How many blocks of the generation come before the first of these.
  int32_t first_block = 0;

  // To the disk: what stands in the file beside the KV.
  std::shared_ptr<const ParkedGeneration> parked;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_KV_MOVE_H_
