#include "engine/serving/listener.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "glog/logging.h"
#include "grpc/support/log.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "proto/health/v1/health.pb.h"

namespace fermata {
namespace {

// So often the server asks whether a silent peer is still there, and so long it waits for the answer.
constexpr absl::Duration kKeepAliveTime = absl::Minutes(2);
constexpr absl::Duration kKeepAliveTimeout = absl::Seconds(20);

void SetKeepAlive(grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(absl::ToInt64Milliseconds(kKeepAliveTime)));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             static_cast<int>(absl::ToInt64Milliseconds(kKeepAliveTimeout)));
  // A client may ask as often as it likes, streams or none.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
}

// gRPC's own words are for its developers: shown with GLOG_v=1. What a user must know, our errors say.
void LogForDevelopers(gpr_log_func_args* args) { VLOG(1) << "gRPC: " << args->message; }

// The address with its port replaced by the one that was picked.
std::string WithPort(const std::string& address, int port) {
  if (absl::StartsWith(address, "unix:")) return address;
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::Start(const std::vector<std::string>& addresses,
                                                          grpc::Service& service) {
  static std::once_flag plugins;
  std::call_once(plugins, [] {
    gpr_set_log_function(LogForDevelopers);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::health::v1::HealthCheckRequest::descriptor();  // links it, so that reflection knows what Health is
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
  grpc::ServerBuilder builder;
  SetKeepAlive(builder);
  // Otherwise a second server would share the port in silence.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  std::vector<int> ports(addresses.size(), 0);
  for (size_t i = 0; i < addresses.size(); ++i) {
    builder.AddListeningPort(addresses[i], grpc::InsecureServerCredentials(), &ports[i]);
  }
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) {
    // They are bound one after the other, and the first failure ends it.
    const size_t failed = std::min<size_t>(std::find(ports.begin(), ports.end(), 0) - ports.begin(), ports.size() - 1);
    return absl::UnavailableError(absl::StrCat("cannot listen at ", addresses[failed],
                                               ": is the address in use, or not of this machine? Give another one"));
  }
  std::vector<std::string> bound;
  for (size_t i = 0; i < addresses.size(); ++i) bound.push_back(WithPort(addresses[i], ports[i]));
  std::unique_ptr<Listener> listener(new Listener(std::move(server), std::move(bound)));
  listener->SetServing(true);
  return listener;
}

Listener::~Listener() { Shutdown(absl::ZeroDuration()); }

void Listener::SetServing(bool serving) { server_->GetHealthCheckService()->SetServingStatus(serving); }

void Listener::Shutdown(absl::Duration grace) {
  if (std::exchange(shut_down_, true)) return;
  server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(grace));
  server_->Wait();
}

}  // namespace fermata
