#include "tools/ctl/verb_commands.h"

#include <cstdint>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tools/ctl/control_flags.h"
#include "tools/ctl/results.h"

namespace fermata::ctl {
namespace {

// What the verbs have in common: a request with ids, and one result for each.
template <typename Request>
class VerbCommand : public Command {
 public:
  using Rpc = grpc::Status (v1::ControlService::Stub::*)(grpc::ClientContext*, const Request&, v1::OperationResults*);

  explicit VerbCommand(Rpc rpc) : rpc_(rpc) {}

  absl::string_view operands() const override { return "ID..."; }

  void AddFlags(FlagSet& flags) override {
    targets_.AddTo(flags);
    caller_.AddTo(flags);
  }

  absl::Status Prepare(std::vector<std::string> operands) override {
    caller_.Fill(request_);
    return targets_.Fill(operands, request_);
  }

  absl::Status Run(Client& client, Output& output) override {
    grpc::ClientContext context;
    Client::SetDeadline(context);
    v1::OperationResults results;
    if (absl::Status status = Client::ToStatus((client.control().*rpc_)(&context, request_, &results)); !status.ok()) {
      return status;
    }
    return PrintResults(results, output);
  }

 protected:
  Request request_;

 private:
  const Rpc rpc_;
  TargetFlags targets_;
  CallerFlags caller_;
};

class PauseCommand : public VerbCommand<v1::PreemptRequest> {
 public:
  PauseCommand() : VerbCommand(&v1::ControlService::Stub::Preempt) {}
  absl::string_view name() const override { return "pause"; }
  absl::string_view summary() const override { return "Hold generations until continue; their KV cache stays"; }
  void AddFlags(FlagSet& flags) override {
    flags.AddString("reason", "shown to whoever reads the generation", request_.mutable_reason());
    flags.AddChoice("tier", "where the KV cache is to go at once", {"device", "host", "disk"}, &tier_);
    lease_.AddTo(flags);
    VerbCommand::AddFlags(flags);
  }
  absl::Status Prepare(std::vector<std::string> operands) override {
    v1::KvTier::Tier tier = v1::KvTier::KV_TIER_UNSPECIFIED;
    if (v1::KvTier::Tier_Parse(absl::AsciiStrToUpper(tier_), &tier)) request_.set_tier(tier);
    lease_.Fill(request_);
    return VerbCommand::Prepare(std::move(operands));
  }

 private:
  LeaseFlags lease_;
  std::string tier_;
};

class ContinueCommand : public VerbCommand<v1::ContinueRequest> {
 public:
  ContinueCommand() : VerbCommand(&v1::ControlService::Stub::Continue) {}
  absl::string_view name() const override { return "continue"; }
  absl::string_view summary() const override { return "Let paused generations go on where they stopped"; }
  void AddFlags(FlagSet& flags) override {
    flags.AddString("append", "text to put after what there is; of one id", &append_);
    flags.AddString("append_turn", "the user's next turn in a chat; of one id", &append_turn_);
    flags.AddString("append_id", "makes a retry of an append safe", request_.mutable_append_id());
    flags.AddInteger("max_tokens", "the new total of output tokens; of one id", &max_tokens_);
    VerbCommand::AddFlags(flags);
  }
  absl::Status Prepare(std::vector<std::string> operands) override {
    if (!append_.empty() && !append_turn_.empty()) {
      return absl::InvalidArgumentError("--append and --append_turn are given; only one may be");
    }
    if (!append_.empty()) request_.mutable_append()->set_text(append_);
    if (!append_turn_.empty()) {
      v1::ChatMessage* turn = request_.mutable_append()->mutable_chat()->add_messages();
      turn->set_role("user");
      turn->set_content(append_turn_);
    }
    if (max_tokens_.has_value()) request_.set_max_tokens(*max_tokens_);
    return VerbCommand::Prepare(std::move(operands));
  }

 private:
  std::string append_;
  std::string append_turn_;
  std::optional<int32_t> max_tokens_;
};

class AbortCommand : public VerbCommand<v1::AbortRequest> {
 public:
  AbortCommand() : VerbCommand(&v1::ControlService::Stub::Abort) {}
  absl::string_view name() const override { return "abort"; }
  absl::string_view summary() const override { return "End generations and free their memory"; }
  void AddFlags(FlagSet& flags) override {
    flags.AddString("reason", "becomes the generation's error message", request_.mutable_reason());
    VerbCommand::AddFlags(flags);
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
