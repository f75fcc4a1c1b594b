// The commands that stream a generation: generate and attach.

#ifndef FERMATA_TOOLS_CTL_STREAM_COMMANDS_H_
#define FERMATA_TOOLS_CTL_STREAM_COMMANDS_H_

#include <memory>

#include "tools/ctl/command.h"

namespace fermata::ctl {

// Starts a generation and streams it.
std::unique_ptr<Command> NewGenerateCommand();

// Streams a generation that exists.
std::unique_ptr<Command> NewAttachCommand();

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_STREAM_COMMANDS_H_
