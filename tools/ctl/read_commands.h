// The commands that only look: list, get, engine.

#ifndef FERMATA_TOOLS_CTL_READ_COMMANDS_H_
#define FERMATA_TOOLS_CTL_READ_COMMANDS_H_

#include <memory>

#include "tools/ctl/command.h"

namespace fermata::ctl {

// All generations that the server keeps, page by page, in order of arrival.
std::unique_ptr<Command> NewListCommand();

// Everything about some generations. An unknown id makes the command fail, after all were asked for.
std::unique_ptr<Command> NewGetCommand();

// Everything about the engine.
std::unique_ptr<Command> NewEngineCommand();

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_READ_COMMANDS_H_
