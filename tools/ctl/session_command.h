// Sessions by hand: session open, keep, close.

#ifndef FERMATA_TOOLS_CTL_SESSION_COMMAND_H_
#define FERMATA_TOOLS_CTL_SESSION_COMMAND_H_

#include <memory>

#include "tools/ctl/command.h"

namespace fermata::ctl {

// `open` prints the session with its epoch; `keep` keeps one alive, opening it if no epoch is given, until it is ended
// by a signal or the session is refused; `close` ends it, and its pauses.
std::unique_ptr<Command> NewSessionCommand();

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_SESSION_COMMAND_H_
