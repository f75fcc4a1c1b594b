#include "tools/ctl/output.h"

#include <string>

#include "google/protobuf/util/json_util.h"

namespace fermata::ctl {

Output::Output(bool json, std::ostream& results, std::ostream& notices)
    : json_(json), results_(results), notices_(notices) {}

void Output::Json(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  if (auto status = google::protobuf::util::MessageToJsonString(message, &text, options); !status.ok()) {
    Error(std::string(status.message()));
    return;
  }
  results_ << text << std::endl;
}

void Output::Text(absl::string_view text) { results_ << text << std::flush; }

void Output::Notice(absl::string_view line) {
  if (!json_) notices_ << line << std::endl;
}

void Output::Error(absl::string_view message) { notices_ << "error: " << message << std::endl; }

}  // namespace fermata::ctl
