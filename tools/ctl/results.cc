#include "tools/ctl/results.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "tools/ctl/format.h"

namespace fermata::ctl {

absl::Status PrintResults(const v1::OperationResults& results, Output& output) {
  absl::Status first_error;
  bool head = false;
  for (const v1::OperationResult& result : results.results()) {
    const absl::Status status(static_cast<absl::StatusCode>(result.code()), result.message());
    if (output.json()) {
      output.Json(result);
    } else if (status.ok()) {
      if (!head) output.Text(TableHead());
      head = true;
      output.Text(TableRow(result.generation()));
    } else if (!first_error.ok()) {
      output.Error(absl::StrCat(absl::StatusCodeToString(status.code()), ": ", Printable(status.message())));
    }
    first_error.Update(status);
  }
  return first_error;
}

}  // namespace fermata::ctl
