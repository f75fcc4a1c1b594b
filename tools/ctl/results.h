// The outcome of a verb over many ids, printed.

#ifndef FERMATA_TOOLS_CTL_RESULTS_H_
#define FERMATA_TOOLS_CTL_RESULTS_H_

#include "absl/status/status.h"
#include "proto/fermata/v1/control_service.pb.h"
#include "tools/ctl/output.h"

namespace fermata::ctl {

// Prints the generation of every id as it is after the verb, or the id's error. Returns the first error, which is the
// command's own outcome: whoever runs it prints that one.
absl::Status PrintResults(const v1::OperationResults& results, Output& output);

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_RESULTS_H_
