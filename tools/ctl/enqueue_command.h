// The command enqueue: starts a generation that nobody reads yet.

#ifndef FERMATA_TOOLS_CTL_ENQUEUE_COMMAND_H_
#define FERMATA_TOOLS_CTL_ENQUEUE_COMMAND_H_

#include <memory>

#include "tools/ctl/command.h"

namespace fermata::ctl {

std::unique_ptr<Command> NewEnqueueCommand();

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_ENQUEUE_COMMAND_H_
