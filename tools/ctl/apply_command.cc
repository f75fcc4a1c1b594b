#include "tools/ctl/apply_command.h"

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/util/json_util.h"
#include "tools/ctl/control_flags.h"
#include "tools/ctl/results.h"

namespace fermata::ctl {
namespace {

absl::Status AddOperation(const std::vector<std::string>& words, v1::ApplyRequest& request) {
  const std::string& verb = words[0];
  v1::Operation operation;
  size_t first_id = 1;
  const auto add = [&](auto* to) {
    for (size_t i = first_id; i < words.size(); ++i) to->add_generation_ids(words[i]);
    return to->generation_ids_size() > 0;
  };
  bool has_ids = false;
  if (verb == "pause") {
    has_ids = add(operation.mutable_preempt());
  } else if (verb == "continue") {
    has_ids = add(operation.mutable_resume());
  } else if (verb == "abort") {
    has_ids = add(operation.mutable_abort());
  } else if (verb == "priority") {
    int32_t priority = 0;
    if (words.size() < 2 || !absl::SimpleAtoi(words[1], &priority)) {
      return absl::InvalidArgumentError("a priority is needed before the ids");
    }
    first_id = 2;
    has_ids = add(operation.mutable_set_priority());
    operation.mutable_set_priority()->set_priority(priority);
  } else {
    return absl::InvalidArgumentError(absl::StrCat("'", verb, "' is none of pause, continue, abort, priority"));
  }
  if (!has_ids) return absl::InvalidArgumentError("at least one id is needed");
  *request.add_operations() = std::move(operation);
  return absl::OkStatus();
}

absl::StatusOr<v1::ApplyRequest> ReadJson(std::istream& input) {
  const std::string text((std::istreambuf_iterator<char>(input)), std::istreambuf_iterator<char>());
  v1::ApplyRequest request;
  const auto status = google::protobuf::util::JsonStringToMessage(text, &request);
  if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat("no ApplyRequest in JSON: ", status.ToString()));
  return request;
}

class ApplyCommand : public Command {
 public:
  absl::string_view name() const override { return "apply"; }
  absl::string_view operands() const override { return "FILE|-"; }
  absl::string_view summary() const override { return "Do several verbs at one step boundary, from a file of lines"; }

  void AddFlags(FlagSet& flags) override {
    flags.AddSwitch("atomic", "all or none", &atomic_);
    flags.AddSwitch("json_input", "the file is an ApplyRequest in JSON", &json_input_);
    caller_.AddTo(flags);
  }

  absl::Status Prepare(std::vector<std::string> operands) override {
    if (operands.size() != 1) return absl::InvalidArgumentError("exactly one file is needed, or - for standard input");
    std::ifstream file;
    if (operands[0] != "-") {
      file.open(operands[0]);
      if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read ", operands[0]));
    }
    std::istream& input = operands[0] == "-" ? std::cin : file;
    absl::StatusOr<v1::ApplyRequest> request = json_input_ ? ReadJson(input) : ReadOperations(input);
    if (!request.ok()) return request.status();
    request_ = *std::move(request);
    if (atomic_) request_.set_atomic(true);
    caller_.Fill(request_);
    return absl::OkStatus();
  }

  absl::Status Run(Client& client, Output& output) override {
    grpc::ClientContext context;
    Client::SetDeadline(context);
    v1::OperationResults results;
    if (absl::Status status = Client::ToStatus(client.control().Apply(&context, request_, &results)); !status.ok()) {
      return status;
    }
    return PrintResults(results, output);
  }

 private:
  bool atomic_ = false;
  bool json_input_ = false;
  CallerFlags caller_;
  v1::ApplyRequest request_;
};

}  // namespace

absl::StatusOr<v1::ApplyRequest> ReadOperations(std::istream& lines) {
  v1::ApplyRequest request;
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty() || words[0][0] == '#') continue;
    if (absl::Status status = AddOperation(words, request); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", status.message()));
    }
  }
  if (request.operations().empty()) return absl::InvalidArgumentError("there are no operations");
  return request;
}

std::unique_ptr<Command> NewApplyCommand() { return std::make_unique<ApplyCommand>(); }

}  // namespace fermata::ctl
