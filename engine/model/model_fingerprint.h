// Tells models apart, for what is kept from one process to another.

#ifndef FERMATA_ENGINE_MODEL_MODEL_FINGERPRINT_H_
#define FERMATA_ENGINE_MODEL_MODEL_FINGERPRINT_H_

#include <string>

#include "absl/status/statusor.h"

namespace fermata {

// A word that stays the same for a model that is not changed, wherever it lies: over the size, the first and the last
// MiB of its file, or of every .json and .safetensors file of its folder, with their names. Not the whole of large
// files: that would take seconds. NOT_FOUND or UNAVAILABLE naming what cannot be read.
absl::StatusOr<std::string> ModelFingerprint(const std::string& path);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_MODEL_FINGERPRINT_H_
