#include "tools/ctl/flag_set.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace fermata::ctl {

void FlagSet::AddSwitch(absl::string_view name, absl::string_view help, bool* value) {
  flags_.push_back({std::string(name), std::string(help), "", [value](absl::string_view) {
                      *value = true;
                      return absl::OkStatus();
                    }});
}

void FlagSet::AddString(absl::string_view name, absl::string_view help, std::string* value) {
  flags_.push_back({std::string(name), std::string(help), "TEXT", [value](absl::string_view text) {
                      *value = std::string(text);
                      return absl::OkStatus();
                    }});
}

void FlagSet::AddStrings(absl::string_view name, absl::string_view help, std::vector<std::string>* values) {
  flags_.push_back({std::string(name), std::string(help), "TEXT", [values](absl::string_view text) {
                      values->emplace_back(text);
                      return absl::OkStatus();
                    }});
}

template <typename Integer>
void FlagSet::AddAnyInteger(absl::string_view name, absl::string_view help, std::optional<Integer>* value) {
  flags_.push_back({std::string(name), std::string(help), "N", [value](absl::string_view text) {
                      Integer number;
                      if (!absl::SimpleAtoi(text, &number)) {
                        return absl::InvalidArgumentError("not a whole number in range");
                      }
                      *value = number;
                      return absl::OkStatus();
                    }});
}

void FlagSet::AddInteger(absl::string_view name, absl::string_view help, std::optional<int32_t>* value) {
  AddAnyInteger(name, help, value);
}

void FlagSet::AddInteger(absl::string_view name, absl::string_view help, std::optional<int64_t>* value) {
  AddAnyInteger(name, help, value);
}

void FlagSet::AddInteger(absl::string_view name, absl::string_view help, std::optional<uint64_t>* value) {
  AddAnyInteger(name, help, value);
}

void FlagSet::AddNumber(absl::string_view name, absl::string_view help, std::optional<float>* value) {
  flags_.push_back({std::string(name), std::string(help), "X", [value](absl::string_view text) {
                      float number;
                      if (!absl::SimpleAtof(text, &number)) return absl::InvalidArgumentError("not a number");
                      *value = number;
                      return absl::OkStatus();
                    }});
}

void FlagSet::AddDuration(absl::string_view name, absl::string_view help, std::optional<absl::Duration>* value) {
  flags_.push_back({std::string(name), std::string(help), "TIME", [value](absl::string_view text) {
                      absl::Duration duration;
                      if (!absl::ParseDuration(text, &duration)) {
                        return absl::InvalidArgumentError("not a duration such as 90s or 5m");
                      }
                      *value = duration;
                      return absl::OkStatus();
                    }});
}

void FlagSet::AddChoice(absl::string_view name, absl::string_view help, std::vector<std::string> words,
                        std::string* value) {
  std::string placeholder = absl::StrJoin(words, "|");
  auto set = [words = std::move(words), value](absl::string_view text) {
    for (const std::string& word : words) {
      if (!absl::EqualsIgnoreCase(word, text)) continue;
      *value = word;
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat("not one of ", absl::StrJoin(words, ", ")));
  };
  flags_.push_back({std::string(name), std::string(help), std::move(placeholder), std::move(set)});
}

const FlagSet::Flag* FlagSet::Find(absl::string_view name) const {
  auto found = std::find_if(flags_.begin(), flags_.end(), [name](const Flag& flag) { return flag.name == name; });
  return found == flags_.end() ? nullptr : &*found;
}

absl::StatusOr<std::vector<std::string>> FlagSet::Parse(absl::Span<const std::string> arguments) const {
  std::vector<std::string> rest;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view text = arguments[i];
    if (text == "--") {
      rest.insert(rest.end(), arguments.begin() + i + 1, arguments.end());
      break;
    }
    if (!absl::ConsumePrefix(&text, "--")) {
      rest.emplace_back(text);
      continue;
    }
    const size_t equals = text.find('=');
    const absl::string_view name = text.substr(0, equals);
    const Flag* flag = Find(name);
    if (flag == nullptr) return absl::InvalidArgumentError(absl::StrCat("unknown flag --", name));

    std::optional<absl::string_view> value;
    if (equals != absl::string_view::npos) value = text.substr(equals + 1);
    if (flag->placeholder.empty() && value.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("--", name, " takes no value"));
    }
    if (!flag->placeholder.empty() && !value.has_value()) {
      if (++i == arguments.size()) return absl::InvalidArgumentError(absl::StrCat("--", name, " needs a value"));
      value = arguments[i];
    }
    if (absl::Status status = flag->set(value.value_or("")); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--", name, "=", *value, ": ", status.message()));
    }
  }
  return rest;
}

std::string FlagSet::Help() const {
  std::string help;
  for (const Flag& flag : flags_) {
    const std::string left =
        flag.placeholder.empty() ? absl::StrCat("--", flag.name) : absl::StrCat("--", flag.name, "=", flag.placeholder);
    absl::StrAppendFormat(&help, "  %-38s %s\n", left, flag.help);
  }
  return help;
}

}  // namespace fermata::ctl
