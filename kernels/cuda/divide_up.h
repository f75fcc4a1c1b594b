// Division that rounds up, as sharing out work needs it.

#ifndef FERMATA_KERNELS_CUDA_DIVIDE_UP_H_
#define FERMATA_KERNELS_CUDA_DIVIDE_UP_H_

#include <type_traits>

namespace fermata::kernels::cuda {

// How many of b it takes to hold a. REQUIRES: a >= 0, b > 0.
template <typename A, typename B>
constexpr std::common_type_t<A, B> DivideUp(A a, B b) {
  return (a + b - 1) / b;
}

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_DIVIDE_UP_H_
