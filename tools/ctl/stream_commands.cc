#include "tools/ctl/stream_commands.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "tools/ctl/spec_flags.h"
#include "tools/ctl/stream_printer.h"

namespace fermata::ctl {
namespace {

// Prints `reader`'s messages to the end; the RPC's status if it failed, otherwise how the generation ended.
absl::Status PrintStream(grpc::ClientReader<v1::GenerateResponse>& reader, Output& output) {
  StreamPrinter printer(output);
  v1::GenerateResponse response;
  while (reader.Read(&response)) printer.Print(response);
  if (absl::Status status = Client::ToStatus(reader.Finish()); !status.ok()) return status;
  return printer.outcome();
}

class GenerateCommand : public Command {
 public:
  absl::string_view name() const override { return "generate"; }
  absl::string_view operands() const override { return "PROMPT..."; }
  absl::string_view summary() const override { return "Start a generation and stream it"; }

  void AddFlags(FlagSet& flags) override {
    flags.AddString("id", "its name; default: the server chooses one", request_.mutable_generation_id());
    spec_.AddTo(flags);
  }

  absl::Status Prepare(std::vector<std::string> operands) override {
    absl::StatusOr<v1::GenerationSpec> spec = spec_.ToSpec(operands);
    if (!spec.ok()) return spec.status();
    *request_.mutable_spec() = *std::move(spec);
    return absl::OkStatus();
  }

  absl::Status Run(Client& client, Output& output) override {
    grpc::ClientContext context;
    return PrintStream(*client.data().Generate(&context, request_), output);
  }

 private:
  SpecFlags spec_;
  v1::GenerateRequest request_;
};

class AttachCommand : public Command {
 public:
  absl::string_view name() const override { return "attach"; }
  absl::string_view operands() const override { return "ID"; }
  absl::string_view summary() const override { return "Stream a generation that exists"; }

  void AddFlags(FlagSet& flags) override {
    flags.AddInteger("offset", "first output token wanted, counted from 0", &offset_);
  }

  absl::Status Prepare(std::vector<std::string> operands) override {
    if (operands.size() != 1) return absl::InvalidArgumentError("exactly one id is needed");
    request_.set_generation_id(operands[0]);
    request_.set_offset(offset_.value_or(0));
    return absl::OkStatus();
  }

  absl::Status Run(Client& client, Output& output) override {
    grpc::ClientContext context;
    return PrintStream(*client.data().Attach(&context, request_), output);
  }

 private:
  std::optional<int64_t> offset_;
  v1::AttachRequest request_;
};

}  // namespace

std::unique_ptr<Command> NewGenerateCommand() { return std::make_unique<GenerateCommand>(); }
std::unique_ptr<Command> NewAttachCommand() { return std::make_unique<AttachCommand>(); }

}  // namespace fermata::ctl
