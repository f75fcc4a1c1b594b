// Gives back the memory of tensors that were read from mapped files.

#ifndef FERMATA_ENGINE_MODEL_RELEASED_LATER_H_
#define FERMATA_ENGINE_MODEL_RELEASED_LATER_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "engine/model/mapped_file.h"

namespace fermata {

// Tensors that are made ready together are read after the last of them was taken: so each is released at the next few,
// again and again.
class ReleasedLater {
 public:
  // `part` is taken now, and those before it are released. REQUIRES: as MappedFile::Release().
  void Took(absl::Span<const uint8_t> part) {
    for (const absl::Span<const uint8_t> earlier : last_) {
      if (!earlier.empty()) MappedFile::Release(earlier);
    }
    last_[next_++ % last_.size()] = part;
  }

 private:
  std::array<absl::Span<const uint8_t>, 3> last_;  // as many as are ever made ready together
  size_t next_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_RELEASED_LATER_H_
