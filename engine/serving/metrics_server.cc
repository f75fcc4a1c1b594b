#include "engine/serving/metrics_server.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

absl::StatusOr<sockaddr_in> Parse(const std::string& address) {
  sockaddr_in parsed = {};
  parsed.sin_family = AF_INET;
  const size_t colon = address.rfind(':');
  const std::string host = address.substr(0, colon == std::string::npos ? 0 : colon);
  int port = -1;
  const bool has_port = colon != std::string::npos && absl::SimpleAtoi(address.substr(colon + 1), &port);
  const bool has_host = inet_pton(AF_INET, host == "localhost" ? "127.0.0.1" : host.c_str(), &parsed.sin_addr) == 1;
  if (!has_host || !has_port || port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics_address is \"", address, "\"; allowed is an IPv4 address, a colon and a port"));
  }
  parsed.sin_port = htons(static_cast<uint16_t>(port));
  return parsed;
}

// Takes the address and lets go of it again: the library that will listen there has no other way to say that it cannot
// than to throw. Returns it with the port that was picked.
absl::StatusOr<std::string> Probe(const std::string& address) {
  absl::StatusOr<sockaddr_in> parsed = Parse(address);
  if (!parsed.ok()) return parsed.status();
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int reuse = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
  auto* generic = reinterpret_cast<sockaddr*>(&*parsed);
  socklen_t size = sizeof(*parsed);
  const bool bound = bind(descriptor, generic, size) == 0 && listen(descriptor, 1) == 0 &&
                     getsockname(descriptor, generic, &size) == 0;
  const int error = errno;
  close(descriptor);
  if (!bound) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen at --metrics_address=", address, ": ", std::strerror(error)));
  }
  char host[INET_ADDRSTRLEN] = {};
  inet_ntop(AF_INET, &parsed->sin_addr, host, sizeof(host));
  return absl::StrCat(host, ":", ntohs(parsed->sin_port));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& address, std::vector<std::shared_ptr<prometheus::Collectable>> sources) {
  const absl::StatusOr<std::string> probed = Probe(address);
  if (!probed.ok()) return probed.status();
  return std::unique_ptr<MetricsServer>(new MetricsServer(*probed, std::move(sources)));
}

MetricsServer::MetricsServer(const std::string& address, std::vector<std::shared_ptr<prometheus::Collectable>> sources)
    : address_(address), sources_(std::move(sources)), exposer_(address) {
  // It keeps no more than weak pointers to them.
  for (const std::shared_ptr<prometheus::Collectable>& source : sources_) exposer_.RegisterCollectable(source);
}

}  // namespace fermata
