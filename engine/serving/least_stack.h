// Stacks of threads that other libraries start.

#ifndef FERMATA_ENGINE_SERVING_LEAST_STACK_H_
#define FERMATA_ENGINE_SERVING_LEAST_STACK_H_

#include <cstddef>

namespace fermata {

// No thread of the process gets a smaller stack, whatever is asked for: linked in, least_stack.cc stands before the C
// library's pthread_attr_setstacksize(). For glibc counts thread-local memory of all libraries as a part of the stack:
// cuBLASLt's is larger than the 100 KiB that the library which serves the metrics asks for, and it could start no
// thread.
inline constexpr size_t kLeastStackBytes = size_t{1} << 20;

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_LEAST_STACK_H_
