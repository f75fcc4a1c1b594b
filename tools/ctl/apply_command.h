// Several verbs at one step boundary: apply.

#ifndef FERMATA_TOOLS_CTL_APPLY_COMMAND_H_
#define FERMATA_TOOLS_CTL_APPLY_COMMAND_H_

#include <istream>
#include <memory>

#include "absl/status/statusor.h"
#include "proto/fermata/v1/control_service.pb.h"
#include "tools/ctl/command.h"

namespace fermata::ctl {

// One operation a line: "pause ID...", "continue ID...", "abort ID...", "priority N ID...". Empty lines and those that
// begin with # are left out. INVALID_ARGUMENT naming the line.
absl::StatusOr<v1::ApplyRequest> ReadOperations(std::istream& lines);

// Prints a result for each id, like the verbs.
std::unique_ptr<Command> NewApplyCommand();

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_APPLY_COMMAND_H_
