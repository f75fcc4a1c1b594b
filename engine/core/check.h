// FERMATA_CHECK(condition): ends the process, naming the place, if an invariant of the engine's own is broken.
//
// For bugs only. What a caller, a client or a model can cause is answered with absl::Status. Always on: a broken engine
// must not go on writing into KV blocks. The core has this of its own because it depends on Abseil alone.

#ifndef FERMATA_ENGINE_CORE_CHECK_H_
#define FERMATA_ENGINE_CORE_CHECK_H_

#include <cstdio>
#include <cstdlib>

#include "absl/base/optimization.h"

namespace fermata::check_internal {

[[noreturn]] inline void Fail(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
  std::fflush(stderr);
  std::abort();
}

}  // namespace fermata::check_internal

#define FERMATA_CHECK(condition)                       \
  (ABSL_PREDICT_TRUE(condition) ? static_cast<void>(0) \
                                : ::fermata::check_internal::Fail(__FILE__, __LINE__, #condition))

#endif  // FERMATA_ENGINE_CORE_CHECK_H_
