#include "tools/ctl/client.h"

#include <chrono>

namespace fermata::ctl {
namespace {

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  // The stream of a paused generation is silent for as long as it is held: pings keep it from being taken for dead.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

Client::Client(const std::string& data_address, const std::string& control_address)
    : data_(v1::InferenceService::NewStub(Connect(data_address))),
      control_(v1::ControlService::NewStub(Connect(control_address))) {}

void Client::SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(1));
}

absl::Status Client::ToStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace fermata::ctl
