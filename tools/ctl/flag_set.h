// The flags of one command: what they are called, what they mean, and where their values go. Unlike global flags, each
// command has its own set, is refused what it does not know, and prints only what concerns it.

#ifndef FERMATA_TOOLS_CTL_FLAG_SET_H_
#define FERMATA_TOOLS_CTL_FLAG_SET_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace fermata::ctl {

// Flags are written --name=value or --name value; switches --name alone. A lone `--` ends the flags: what follows is
// taken as it is.
class FlagSet {
 public:
  FlagSet() = default;
  FlagSet(const FlagSet&) = delete;
  FlagSet& operator=(const FlagSet&) = delete;

  // Each adds a flag whose value is written to `*value`, which must outlive the set. An optional stays unset where the
  // flag is not given, so that the server's default applies. `help` is one line, without a full stop.
  void AddSwitch(absl::string_view name, absl::string_view help, bool* value);
  void AddString(absl::string_view name, absl::string_view help, std::string* value);
  void AddStrings(absl::string_view name, absl::string_view help, std::vector<std::string>* values);  // may be repeated
  void AddInteger(absl::string_view name, absl::string_view help, std::optional<int32_t>* value);
  void AddInteger(absl::string_view name, absl::string_view help, std::optional<int64_t>* value);
  void AddInteger(absl::string_view name, absl::string_view help, std::optional<uint64_t>* value);
  void AddNumber(absl::string_view name, absl::string_view help, std::optional<float>* value);
  void AddDuration(absl::string_view name, absl::string_view help,
                   std::optional<absl::Duration>* value);  // "90s", "5m"
  // One of `words`, in any case; what is written is the word as it stands in `words`.
  void AddChoice(absl::string_view name, absl::string_view help, std::vector<std::string> words, std::string* value);

  // Takes the flags out of `arguments` and returns what is left, in order. INVALID_ARGUMENT naming the flag if one is
  // unknown, lacks its value or has one that cannot be read.
  absl::StatusOr<std::vector<std::string>> Parse(absl::Span<const std::string> arguments) const;

  // One line for each flag, in the order in which they were added.
  std::string Help() const;

 private:
  struct Flag {
    std::string name;
    std::string help;
    std::string placeholder;  // what stands for the value in the help; empty: a switch
    std::function<absl::Status(absl::string_view value)> set;
  };

  template <typename Integer>
  void AddAnyInteger(absl::string_view name, absl::string_view help, std::optional<Integer>* value);
  const Flag* Find(absl::string_view name) const;

  std::vector<Flag> flags_;
};

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_FLAG_SET_H_
