#include "engine/core/ids.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace fermata {

absl::StatusOr<GenerationId> GenerationId::Parse(absl::string_view text) {
  if (text.empty() || text.size() > kMaxLength) {
    return absl::InvalidArgumentError(
        absl::StrCat("generation_id has ", text.size(), " characters; allowed are 1 to ", kMaxLength));
  }
  for (const char c : text) {
    const bool legal =
        absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == ':' || c == '-';
    if (!legal) {
      return absl::InvalidArgumentError(absl::StrCat("generation_id \"", absl::CHexEscape(text), "\" contains \"",
                                                     absl::CHexEscape(absl::string_view(&c, 1)),
                                                     "\"; allowed are letters, digits and . _ : -"));
    }
  }
  return GenerationId(std::string(text));
}

}  // namespace fermata
