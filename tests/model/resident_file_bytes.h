// For tests of what is given back.

#ifndef FERMATA_TESTS_MODEL_RESIDENT_FILE_BYTES_H_
#define FERMATA_TESTS_MODEL_RESIDENT_FILE_BYTES_H_

#include <cstdint>

namespace fermata {

// Bytes of files that this process has in memory, as the system says; -1 if it does not.
int64_t ResidentFileBytes();

}  // namespace fermata

#endif  // FERMATA_TESTS_MODEL_RESIDENT_FILE_BYTES_H_
