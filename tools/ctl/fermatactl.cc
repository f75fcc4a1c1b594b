#include "tools/ctl/fermatactl.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/ctl/apply_command.h"
#include "tools/ctl/command.h"
#include "tools/ctl/enqueue_command.h"
#include "tools/ctl/read_commands.h"
#include "tools/ctl/session_command.h"
#include "tools/ctl/stream_commands.h"
#include "tools/ctl/verb_commands.h"
#include "tools/ctl/watch_commands.h"

namespace fermata::ctl {
namespace {

using Commands = std::vector<std::unique_ptr<Command>>;

Commands AllCommands() {
  Commands commands;
  commands.push_back(NewGenerateCommand());
  commands.push_back(NewEnqueueCommand());
  commands.push_back(NewAttachCommand());
  commands.push_back(NewListCommand());
  commands.push_back(NewGetCommand());
  commands.push_back(NewPauseCommand());
  commands.push_back(NewContinueCommand());
  commands.push_back(NewAbortCommand());
  commands.push_back(NewPriorityCommand());
  commands.push_back(NewApplyCommand());
  commands.push_back(NewSessionCommand());
  commands.push_back(NewEngineCommand());
  commands.push_back(NewWatchCommand());
  commands.push_back(NewTopCommand());
  return commands;
}

// The flags that every command has.
struct CommonFlags {
  std::string data_address;
  std::string control_address;
  bool json = false;
  bool help = false;

  explicit CommonFlags(const Environment& environment)
      : data_address(environment("FERMATA_DATA_ADDRESS")), control_address(environment("FERMATA_CONTROL_ADDRESS")) {
    if (data_address.empty()) data_address = "127.0.0.1:50051";
    if (control_address.empty()) control_address = "127.0.0.1:50052";
  }

  void AddTo(FlagSet& flags) {
    flags.AddSwitch("json", "JSON objects, one a line", &json);
    flags.AddString("data_address", "default $FERMATA_DATA_ADDRESS or 127.0.0.1:50051", &data_address);
    flags.AddString("control_address", "default $FERMATA_CONTROL_ADDRESS or 127.0.0.1:50052", &control_address);
    flags.AddSwitch("help", "this help", &help);
  }
};

std::string Help(const Commands& commands) {
  std::string help =
      "fermatactl speaks to a Fermata server: starts generations, holds them, lets them go on.\n\n"
      "usage: fermatactl COMMAND [FLAG|OPERAND]...\n\ncommands:\n";
  for (const auto& command : commands) {
    const std::string left = absl::StrCat(command->name(), " ", command->operands());
    absl::StrAppendFormat(&help, "  %-20s %s\n", left, command->summary());
  }
  absl::StrAppend(&help,
                  "\n`fermatactl COMMAND --help` shows a command's flags.\n"
                  "Exit status: 0 done, 1 the server refused or could not be reached, 2 wrong usage.\n");
  return help;
}

std::string Help(const Command& command, const FlagSet& flags) {
  return absl::StrCat(command.summary(), ".\n\nusage: fermatactl ", command.name(), " [FLAG]... ", command.operands(),
                      "\n\nflags:\n", flags.Help());
}

// The position of the command's name: the first argument that is neither a flag nor the value of one. Only the common
// flags may stand before it.
size_t FindCommand(const std::vector<std::string>& arguments) {
  size_t at = 0;
  while (at < arguments.size() && absl::StartsWith(arguments[at], "--")) {
    at += arguments[at] == "--data_address" || arguments[at] == "--control_address" ? 2 : 1;
  }
  return at;
}

int UsageError(std::ostream& notices, absl::string_view message, absl::string_view help_for) {
  notices << "error: " << message << "\nsee: fermatactl " << help_for << (help_for.empty() ? "" : " ") << "--help\n";
  return kExitUsage;
}

}  // namespace

int RunFermatactl(const std::vector<std::string>& arguments, const Environment& environment, std::ostream& results,
                  std::ostream& notices) {
  const Commands commands = AllCommands();
  const size_t at = FindCommand(arguments);
  if (at >= arguments.size()) {
    const bool asked = std::find(arguments.begin(), arguments.end(), "--help") != arguments.end();
    (asked ? results : notices) << Help(commands);
    return asked ? kExitOk : kExitUsage;
  }
  if (arguments[at] == "help") {
    results << Help(commands);
    return kExitOk;
  }
  auto found =
      std::find_if(commands.begin(), commands.end(), [&](const auto& each) { return each->name() == arguments[at]; });
  if (found == commands.end()) return UsageError(notices, absl::StrCat("unknown command '", arguments[at], "'"), "");
  Command& command = **found;

  FlagSet flags;
  CommonFlags common(environment);
  command.AddFlags(flags);
  common.AddTo(flags);
  std::vector<std::string> rest = arguments;
  rest.erase(rest.begin() + at);
  absl::StatusOr<std::vector<std::string>> operands = flags.Parse(rest);
  if (!operands.ok()) return UsageError(notices, operands.status().message(), command.name());
  if (common.help) {
    results << Help(command, flags);
    return kExitOk;
  }
  if (absl::Status status = command.Prepare(*std::move(operands)); !status.ok()) {
    return UsageError(notices, status.message(), command.name());
  }

  Output output(common.json, results, notices);
  Client client(common.data_address, common.control_address);
  if (absl::Status status = command.Run(client, output); !status.ok()) {
    output.Error(absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message()));
    return kExitFailed;
  }
  return kExitOk;
}

}  // namespace fermata::ctl
