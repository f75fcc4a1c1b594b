// The server's side of control_bench.

#ifndef FERMATA_TOOLS_BENCH_PACED_SERVER_H_
#define FERMATA_TOOLS_BENCH_PACED_SERVER_H_

#include <cstdint>

#include "absl/time/time.h"

namespace fermata {

// Serves a model whose steps take `step`, with `slots` slots. Prints the addresses of the data plane and of the
// control plane, then answers each line of standard input with how many gaps there were between two steps since the
// last one, and each in microseconds. Returns at the end of the input.
void ServePaced(int32_t slots, absl::Duration step);

}  // namespace fermata

#endif  // FERMATA_TOOLS_BENCH_PACED_SERVER_H_
