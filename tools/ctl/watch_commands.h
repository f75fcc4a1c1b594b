// What happens, as it happens: watch, top.

#ifndef FERMATA_TOOLS_CTL_WATCH_COMMANDS_H_
#define FERMATA_TOOLS_CTL_WATCH_COMMANDS_H_

#include <memory>

#include "tools/ctl/command.h"

namespace fermata::ctl {

// `watch` prints a line for each event, or with --json a line for each message; `top` draws a screen once a second.
// Both go on until they are ended by a signal.
std::unique_ptr<Command> NewWatchCommand();
std::unique_ptr<Command> NewTopCommand();

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_WATCH_COMMANDS_H_
