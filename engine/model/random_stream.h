// Random numbers without state: a function of (seed, position), so that a pause cannot shift them.

#ifndef FERMATA_ENGINE_MODEL_RANDOM_STREAM_H_
#define FERMATA_ENGINE_MODEL_RANDOM_STREAM_H_

#include <cstdint>

namespace fermata {

// Uniform in [0, 1), with 53 random bits. Philox4x32-10: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3",
// 2011; the seed is the key, the position the counter.
double UniformAt(uint64_t seed, uint64_t position);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_RANDOM_STREAM_H_
