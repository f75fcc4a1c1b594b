// Where a command writes: results to one stream, what people need besides them to another.

#ifndef FERMATA_TOOLS_CTL_OUTPUT_H_
#define FERMATA_TOOLS_CTL_OUTPUT_H_

#include <ostream>

#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace fermata::ctl {

// Not thread-safe. The streams must outlive it.
class Output {
 public:
  // With `json`, results are JSON objects, one a line, and notices are left out.
  Output(bool json, std::ostream& results, std::ostream& notices);

  bool json() const { return json_; }

  // One JSON object on a line of its own: field names as in the protos, enums by name, zeros and empty fields included.
  void Json(const google::protobuf::Message& message);

  // Text of a result, as it is; seen at once, also through a pipe.
  void Text(absl::string_view text);

  // A line for people, beside the results.
  void Notice(absl::string_view line);

  // A line that says what went wrong; written in either mode.
  void Error(absl::string_view message);

 private:
  const bool json_;
  std::ostream& results_;
  std::ostream& notices_;
};

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_OUTPUT_H_
