// How much memory there is to take.

#ifndef FERMATA_ENGINE_RUNTIME_AVAILABLE_MEMORY_H_
#define FERMATA_ENGINE_RUNTIME_AVAILABLE_MEMORY_H_

#include <cstdint>

namespace fermata {

// Bytes that this process may still take without swapping: what the system has, the part of its file cache that it
// would give up included, or less if its control group says so. May be called from any thread.
int64_t AvailableMemoryBytes();

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_AVAILABLE_MEMORY_H_
