// AVX-VNNI's dot product on processors that lack it, so that code in its encoding can be tested there.

#ifndef FERMATA_TESTS_KERNELS_AVX_VNNI_EMULATOR_H_
#define FERMATA_TESTS_KERNELS_AVX_VNNI_EMULATOR_H_

#if defined(__x86_64__) && defined(__linux__)

#include <signal.h>

namespace fermata::kernels {

// While one lives, `vpdpbusd` of 256 bits in VEX form does in any thread of the process what the manual says: where the
// processor calls it illegal, the signal's handler does it and goes on behind it, which takes a microsecond or two. Any
// other illegal instruction ends the process as ever. One at a time. Source: Intel's Software Developer's Manual,
// volume 2, chapters 2.3 and VPDPBUSD.
class AvxVnniEmulator {
 public:
  AvxVnniEmulator();
  ~AvxVnniEmulator();
  AvxVnniEmulator(const AvxVnniEmulator&) = delete;
  AvxVnniEmulator& operator=(const AvxVnniEmulator&) = delete;

  // How often one was needed, since the last was made.
  static int count();

 private:
  struct sigaction before_;
};

}  // namespace fermata::kernels

#endif

#endif  // FERMATA_TESTS_KERNELS_AVX_VNNI_EMULATOR_H_
