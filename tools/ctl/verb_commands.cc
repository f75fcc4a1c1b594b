#include "tools/ctl/verb_commands.h"

#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tools/ctl/format.h"

namespace fermata::ctl {
namespace {

// What the verbs have in common: a request with ids, and one result for each.
template <typename Request>
class VerbCommand : public Command {
 public:
  using Rpc = grpc::Status (v1::ControlService::Stub::*)(grpc::ClientContext*, const Request&, v1::OperationResults*);

  explicit VerbCommand(Rpc rpc) : rpc_(rpc) {}

  absl::string_view operands() const override { return "ID..."; }

  void AddFlags(FlagSet& flags) override {}

  absl::Status Prepare(std::vector<std::string> operands) override {
    if (operands.empty()) return absl::InvalidArgumentError("at least one id is needed");
    for (const std::string& id : operands) request_.add_generation_ids(id);
    return absl::OkStatus();
  }

  absl::Status Run(Client& client, Output& output) override {
    grpc::ClientContext context;
    Client::SetDeadline(context);
    v1::OperationResults results;
    if (absl::Status status = Client::ToStatus((client.control().*rpc_)(&context, request_, &results)); !status.ok()) {
      return status;
    }
    return Print(results, output);
  }

 protected:
  Request request_;

 private:
  static absl::Status Print(const v1::OperationResults& results, Output& output) {
    absl::Status first_error;  // the command's own outcome: whoever runs it prints that one
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

  const Rpc rpc_;
};

class PauseCommand : public VerbCommand<v1::PreemptRequest> {
 public:
  PauseCommand() : VerbCommand(&v1::ControlService::Stub::Preempt) {}
  absl::string_view name() const override { return "pause"; }
  absl::string_view summary() const override { return "Hold generations until continue; their KV cache stays"; }
  void AddFlags(FlagSet& flags) override {
    flags.AddString("reason", "shown to whoever reads the generation", request_.mutable_reason());
  }
};

class ContinueCommand : public VerbCommand<v1::ContinueRequest> {
 public:
  ContinueCommand() : VerbCommand(&v1::ControlService::Stub::Continue) {}
  absl::string_view name() const override { return "continue"; }
  absl::string_view summary() const override { return "Let paused generations go on where they stopped"; }
};

class AbortCommand : public VerbCommand<v1::AbortRequest> {
 public:
  AbortCommand() : VerbCommand(&v1::ControlService::Stub::Abort) {}
  absl::string_view name() const override { return "abort"; }
  absl::string_view summary() const override { return "End generations and free their memory"; }
  void AddFlags(FlagSet& flags) override {
    flags.AddString("reason", "becomes the generation's error message", request_.mutable_reason());
  }
};

class PriorityCommand : public VerbCommand<v1::SetPriorityRequest> {
 public:
  PriorityCommand() : VerbCommand(&v1::ControlService::Stub::SetPriority) {}
  absl::string_view name() const override { return "priority"; }
  absl::string_view operands() const override { return "N ID..."; }
  absl::string_view summary() const override { return "Change the priority of generations; lower runs sooner"; }

  absl::Status Prepare(std::vector<std::string> operands) override {
    int32_t priority;
    if (operands.empty() || !absl::SimpleAtoi(operands[0], &priority)) {
      return absl::InvalidArgumentError("a priority is needed before the ids: a whole number of 32 bits");
    }
    request_.set_priority(priority);
    operands.erase(operands.begin());
    return VerbCommand::Prepare(std::move(operands));
  }
};

}  // namespace

std::unique_ptr<Command> NewPauseCommand() { return std::make_unique<PauseCommand>(); }
std::unique_ptr<Command> NewContinueCommand() { return std::make_unique<ContinueCommand>(); }
std::unique_ptr<Command> NewAbortCommand() { return std::make_unique<AbortCommand>(); }
std::unique_ptr<Command> NewPriorityCommand() { return std::make_unique<PriorityCommand>(); }

}  // namespace fermata::ctl
