// One verb of the command line.

#ifndef FERMATA_TOOLS_CTL_COMMAND_H_
#define FERMATA_TOOLS_CTL_COMMAND_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "tools/ctl/client.h"
#include "tools/ctl/flag_set.h"
#include "tools/ctl/output.h"

namespace fermata::ctl {

// Used once: AddFlags, then Prepare, then Run.
class Command {
 public:
  virtual ~Command() = default;

  // "generate".
  virtual absl::string_view name() const = 0;

  // What follows the name: "[PROMPT]...".
  virtual absl::string_view operands() const = 0;

  // One line that says what it does.
  virtual absl::string_view summary() const = 0;

  // Adds the flags of this command; their values are written into it.
  virtual void AddFlags(FlagSet& flags) = 0;

  // Takes what was given besides flags, after these were read. INVALID_ARGUMENT: wrong usage, nothing was sent.
  virtual absl::Status Prepare(std::vector<std::string> operands) = 0;

  // Speaks to the server. What it answered is written to `output`, errors about single generations included; a status
  // that is not OK says in one line why the command as a whole failed.
  virtual absl::Status Run(Client& client, Output& output) = 0;
};

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_COMMAND_H_
