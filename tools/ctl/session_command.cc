#include "tools/ctl/session_command.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/fermata/v1/control_service.grpc.pb.h"
#include "tools/ctl/control_flags.h"
#include "tools/ctl/interrupt.h"

namespace fermata::ctl {
namespace {

class SessionCommand : public Command {
 public:
  absl::string_view name() const override { return "session"; }
  absl::string_view operands() const override { return "open|keep|close ID"; }
  absl::string_view summary() const override { return "Open a session, keep it alive, or end it and its pauses"; }

  void AddFlags(FlagSet& flags) override {
    flags.AddDuration("ttl", "how long it lives without being kept alive; default 15s", &ttl_);
    flags.AddSwitch("takeover", "take a live one over, with its pauses", &takeover_);
    flags.AddInteger("epoch", "as open printed it; needed by close", &epoch_);
  }

  absl::Status Prepare(std::vector<std::string> operands) override {
    if (operands.size() != 2) return absl::InvalidArgumentError("open, keep or close is needed, then an id");
    action_ = operands[0];
    id_ = operands[1];
    if (action_ != "open" && action_ != "keep" && action_ != "close") {
      return absl::InvalidArgumentError(absl::StrCat("'", action_, "' is none of open, keep, close"));
    }
    if (action_ == "close" && !epoch_.has_value()) return absl::InvalidArgumentError("--epoch is needed");
    return absl::OkStatus();
  }

  absl::Status Run(Client& client, Output& output) override {
    if (action_ == "close") return Close(client, output);
    if (action_ == "open" || !epoch_.has_value()) {
      if (absl::Status status = Open(client, output); !status.ok()) return status;
    }
    return action_ == "keep" ? Keep(client) : absl::OkStatus();
  }

 private:
  absl::Status Open(Client& client, Output& output) {
    v1::OpenSessionRequest request;
    request.set_session_id(id_);
    if (ttl_.has_value()) *request.mutable_ttl() = ToProto(*ttl_);
    request.set_takeover(takeover_);
    grpc::ClientContext context;
    Client::SetDeadline(context);
    v1::Session session;
    if (absl::Status status = Client::ToStatus(client.control().OpenSession(&context, request, &session));
        !status.ok()) {
      return status;
    }
    Print(session, output);
    return absl::OkStatus();
  }

  absl::Status Close(Client& client, Output& output) {
    v1::CloseSessionRequest request;
    request.set_session_id(id_);
    request.set_epoch(*epoch_);
    grpc::ClientContext context;
    Client::SetDeadline(context);
    v1::Session session;
    if (absl::Status status = Client::ToStatus(client.control().CloseSession(&context, request, &session));
        !status.ok()) {
      return status;
    }
    Print(session, output);
    return absl::OkStatus();
  }

  // Until Ctrl-C, or until the server refuses. The session then lives on for its ttl.
  absl::Status Keep(Client& client) {
    grpc::ClientContext context;
    Interrupt interrupt([&] { context.TryCancel(); });
    const auto stream = client.control().KeepSessionAlive(&context);
    v1::KeepSessionAliveRequest sign;
    sign.set_session_id(id_);
    sign.set_epoch(*epoch_);
    v1::Session answer;
    while (stream->Write(sign) && stream->Read(&answer)) {
      const absl::Duration ttl = absl::Seconds(answer.ttl().seconds()) + absl::Nanoseconds(answer.ttl().nanos());
      if (interrupt.WaitFor(ttl / 3)) break;
    }
    const grpc::Status status = stream->Finish();
    return interrupt.happened() ? absl::OkStatus() : Client::ToStatus(status);
  }

  void Print(const v1::Session& session, Output& output) {
    epoch_ = session.epoch();
    if (output.json()) {
      output.Json(session);
    } else {
      output.Text(absl::StrCat("--session=", session.session_id(), " --epoch=", session.epoch(), "\n"));
    }
  }

  std::string action_;
  std::string id_;
  std::optional<absl::Duration> ttl_;
  bool takeover_ = false;
  std::optional<int64_t> epoch_;
};

}  // namespace

std::unique_ptr<Command> NewSessionCommand() { return std::make_unique<SessionCommand>(); }

}  // namespace fermata::ctl
