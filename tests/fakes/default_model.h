// Where the default model is, for tests that need a real one.

#ifndef FERMATA_TESTS_FAKES_DEFAULT_MODEL_H_
#define FERMATA_TESTS_FAKES_DEFAULT_MODEL_H_

#include <cstdlib>
#include <string>

namespace fermata {

// The path that the environment variable FERMATA_MODEL names; empty: not set, and the test should skip itself, saying
// so. tools/test always sets it.
inline std::string DefaultModelPath() {
  const char* path = std::getenv("FERMATA_MODEL");
  return path == nullptr ? "" : path;
}

}  // namespace fermata

#endif  // FERMATA_TESTS_FAKES_DEFAULT_MODEL_H_
