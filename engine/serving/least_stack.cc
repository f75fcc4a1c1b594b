#include "engine/serving/least_stack.h"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <cerrno>

extern "C" int pthread_attr_setstacksize(pthread_attr_t* attributes, size_t bytes) {
  using Function = int (*)(pthread_attr_t*, size_t);
  static const Function next = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "pthread_attr_setstacksize"));
  return next == nullptr ? ENOSYS : next(attributes, std::max(bytes, fermata::kLeastStackBytes));
}
