// The API's messages as lines of text for people. Programs read --json.

#ifndef FERMATA_TOOLS_CTL_FORMAT_H_
#define FERMATA_TOOLS_CTL_FORMAT_H_

#include <string>

#include "absl/strings/string_view.h"
#include "proto/fermata/v1/control_service.pb.h"
#include "proto/fermata/v1/generation.pb.h"

namespace fermata::ctl {

// The heading of a table of generations, and one row of it; each ends with a line break.
std::string TableHead();
std::string TableRow(const v1::Generation& generation);

// "31 prompt tokens, 31 computed, 0 recomputed; 120 output tokens; paused once for 3.5s". Parts that are zero and say
// nothing are left out.
std::string UsageText(const v1::Usage& usage);

// Everything about one generation, a line for each part.
std::string Details(const v1::Generation& generation);

// Everything about the engine, a line for each part.
std::string Details(const v1::Engine& engine);

// Text from somebody else, fit for a terminal: control characters other than line breaks and tabs become '?'.
std::string Printable(absl::string_view text);

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_FORMAT_H_
