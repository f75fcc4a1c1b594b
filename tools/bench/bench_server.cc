#include "tools/bench/bench_server.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"

namespace fermata {
namespace {

[[noreturn]] void Die(const std::string& what) {
  absl::FPrintF(stderr, "control_bench: %s\n", what);
  std::exit(1);
}

// Runs this binary as the server, and gives the two ends to talk with it.
pid_t Spawn(const std::vector<std::string>& arguments, FILE** to, FILE** from) {
  int input[2];
  int output[2];
  if (pipe(input) != 0 || pipe(output) != 0) Die("no pipe can be made");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
  for (const int end : {input[0], input[1], output[0], output[1]}) posix_spawn_file_actions_addclose(&actions, end);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t process = -1;
  const int error = posix_spawn(&process, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) Die("the server's process cannot be started");
  close(input[0]);
  close(output[1]);
  *to = fdopen(input[1], "w");
  *from = fdopen(output[0], "r");
  return process;
}

std::string ReadWord(FILE* from) {
  std::array<char, 256> word;
  if (std::fscanf(from, "%255s", word.data()) != 1) Die("the server's process has ended");
  return word.data();
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

BenchServer::BenchServer(int32_t slots, absl::Duration step) {
  process_ = Spawn({"control_bench", "--serve", absl::StrCat("--running=", slots),
                    absl::StrCat("--step=", absl::FormatDuration(step))},
                   &to_, &from_);
  data_ = v1::InferenceService::NewStub(Connect(ReadWord(from_)));
  control_ = v1::ControlService::NewStub(Connect(ReadWord(from_)));
}

BenchServer::~BenchServer() {
  std::fclose(to_);
  std::fclose(from_);
  waitpid(process_, nullptr, 0);
}

std::vector<double> BenchServer::TakeGapsUs() {
  std::fputs("gaps\n", to_);
  std::fflush(to_);
  std::vector<double> gaps(std::strtoull(ReadWord(from_).c_str(), nullptr, 10));
  for (double& gap : gaps) gap = std::strtod(ReadWord(from_).c_str(), nullptr);
  return gaps;
}

v1::GenerationSpec BenchServer::Spec(int32_t priority, int32_t max_tokens) {
  v1::GenerationSpec spec;
  spec.mutable_prompt()->mutable_token_ids()->add_token_ids(1);
  spec.mutable_sampling()->set_max_tokens(max_tokens);
  spec.mutable_sampling()->set_ignore_eos(true);
  spec.set_priority(priority);
  return spec;
}

void BenchServer::Enqueue(const std::string& id, const v1::GenerationSpec& spec) {
  v1::EnqueueRequest request;
  request.set_generation_id(id);
  *request.mutable_spec() = spec;
  grpc::ClientContext context;
  v1::Generation generation;
  Check(control().Enqueue(&context, request, &generation));
}

v1::Engine BenchServer::GetEngine() {
  grpc::ClientContext context;
  v1::Engine engine;
  Check(control().GetEngine(&context, {}, &engine));
  return engine;
}

void BenchServer::AwaitRunning(int64_t count) {
  while (GetEngine().state_counts().running_count() < count) absl::SleepFor(absl::Milliseconds(5));
}

v1::OperationResults BenchServer::Preempt(const std::string& id) {
  v1::PreemptRequest request;
  request.add_generation_ids(id);
  return Do(&v1::ControlService::Stub::Preempt, request);
}

v1::OperationResults BenchServer::Continue(const std::string& id) {
  v1::ContinueRequest request;
  request.add_generation_ids(id);
  return Do(&v1::ControlService::Stub::Continue, request);
}

void BenchServer::Check(const grpc::Status& status) {
  if (!status.ok()) Die(status.error_message());
}

}  // namespace fermata
