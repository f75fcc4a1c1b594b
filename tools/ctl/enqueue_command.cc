#include "tools/ctl/enqueue_command.h"

#include <utility>

#include "tools/ctl/control_flags.h"
#include "tools/ctl/format.h"
#include "tools/ctl/spec_flags.h"

namespace fermata::ctl {
namespace {

class EnqueueCommand : public Command {
 public:
  absl::string_view name() const override { return "enqueue"; }
  absl::string_view operands() const override { return "PROMPT..."; }
  absl::string_view summary() const override { return "Start a generation and leave it to itself; attach reads it"; }

  void AddFlags(FlagSet& flags) override {
    flags.AddString("id", "its name; default: the server chooses one", request_.mutable_generation_id());
    flags.AddSwitch("hold", "start it paused", &hold_);
    lease_.AddTo(flags);
    caller_.AddTo(flags);
    spec_.AddTo(flags);
  }

  absl::Status Prepare(std::vector<std::string> operands) override {
    absl::StatusOr<v1::GenerationSpec> spec = spec_.ToSpec(operands);
    if (!spec.ok()) return spec.status();
    *request_.mutable_spec() = *std::move(spec);
    request_.set_hold(hold_);
    lease_.Fill(request_);
    caller_.Fill(request_);
    return absl::OkStatus();
  }

  absl::Status Run(Client& client, Output& output) override {
    grpc::ClientContext context;
    Client::SetDeadline(context);
    v1::Generation generation;
    if (absl::Status status = Client::ToStatus(client.control().Enqueue(&context, request_, &generation));
        !status.ok()) {
      return status;
    }
    if (output.json()) {
      output.Json(generation);
    } else {
      output.Text(TableHead() + TableRow(generation));
    }
    return absl::OkStatus();
  }

 private:
  SpecFlags spec_;
  bool hold_ = false;
  LeaseFlags lease_;
  CallerFlags caller_;
  v1::EnqueueRequest request_;
};

}  // namespace

std::unique_ptr<Command> NewEnqueueCommand() { return std::make_unique<EnqueueCommand>(); }

}  // namespace fermata::ctl
