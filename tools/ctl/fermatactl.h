// The command line as a whole: finds the command, reads its flags, runs it, and turns the outcome into an exit status.

#ifndef FERMATA_TOOLS_CTL_FERMATACTL_H_
#define FERMATA_TOOLS_CTL_FERMATACTL_H_

#include <functional>
#include <ostream>
#include <string>
#include <vector>

namespace fermata::ctl {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed =
    1;                                // the server refused, could not be reached, or a generation did not end by itself
inline constexpr int kExitUsage = 2;  // the command line is wrong; nothing was sent

// Looks up an environment variable; empty if it is not set.
using Environment = std::function<std::string(const std::string& name)>;

// Runs `arguments` (without the program's name) and returns the exit status. Results go to `results`; notices and
// errors, for people, to `notices`.
int RunFermatactl(const std::vector<std::string>& arguments, const Environment& environment, std::ostream& results,
                  std::ostream& notices);

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_FERMATACTL_H_
