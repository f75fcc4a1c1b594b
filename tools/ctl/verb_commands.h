// The verbs over many generations: pause, continue, abort, priority.

#ifndef FERMATA_TOOLS_CTL_VERB_COMMANDS_H_
#define FERMATA_TOOLS_CTL_VERB_COMMANDS_H_

#include <memory>

#include "tools/ctl/command.h"

namespace fermata::ctl {

// Each prints the generation of every id as it is after the verb, or the id's error; a single error makes the command
// fail, after all were printed.
std::unique_ptr<Command> NewPauseCommand();
std::unique_ptr<Command> NewContinueCommand();
std::unique_ptr<Command> NewAbortCommand();
std::unique_ptr<Command> NewPriorityCommand();

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_VERB_COMMANDS_H_
