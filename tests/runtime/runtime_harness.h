// The runtime over the fake model, with calls that wait for their answers. No gRPC: runs under the thread sanitizer.

#ifndef FERMATA_TESTS_RUNTIME_RUNTIME_HARNESS_H_
#define FERMATA_TESTS_RUNTIME_RUNTIME_HARNESS_H_

#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/runtime/clock.h"
#include "engine/runtime/engine_runtime.h"
#include "tests/fakes/fake_model_runner.h"
#include "tests/fakes/fake_token_decoder.h"
#include "tests/fakes/step_gate.h"

namespace fermata {

// What a command came to.
struct Answer {
  absl::Status sent;      // not OK: it was refused, and nothing else is set
  bool answered = false;  // false: the runtime ended before it took effect
  Reply reply;
  std::shared_ptr<TokenLog> log;

  // Of the first id.
  const OperationResult& result() const { return std::get<std::vector<OperationResult>>(reply.result).front(); }
};

class RuntimeHarness {
 public:
  // Every step passes gate(), which is open unless `gated`.
  explicit RuntimeHarness(EngineRuntime::Options options = {}, bool gated = false);
  RuntimeHarness(EngineRuntime::Options options, FakeModelRunnerOptions model);

  // Opens the gate first, so that the engine's thread can end.
  ~RuntimeHarness();

  EngineRuntime& runtime() { return runtime_; }
  StepGate& gate() { return gate_; }
  const FakeTokenDecoder& decoder() const { return decoder_; }

  // Sends a command; get() waits for its answer.
  template <typename TypedCommand>
  std::future<Answer> Start(TypedCommand command) {
    auto promise = std::make_shared<std::promise<Answer>>();
    std::future<Answer> future = promise->get_future();
    const absl::Status sent =
        runtime_.Submit(std::move(command), [promise](const Reply* reply, std::shared_ptr<TokenLog> log) {
          Answer answer;
          answer.answered = reply != nullptr;
          if (reply != nullptr) answer.reply = *reply;
          answer.log = std::move(log);
          promise->set_value(std::move(answer));
        });
    if (!sent.ok()) promise->set_value({.sent = sent});
    return future;
  }

  template <typename TypedCommand>
  Answer Call(TypedCommand command) {
    return Start(std::move(command)).get();
  }

 private:
  FakeModelRunnerOptions Model(const EngineRuntime::Options& options, FakeModelRunnerOptions model);

  StepGate gate_;
  FakeTokenDecoder decoder_;
  MonotonicClock clock_;
  EngineRuntime runtime_;
};

// A command that asks for `max_tokens` tokens after the prompt {1, 2, 3}, greedily and past any end.
EnqueueCommand Enqueue(const std::string& id, int32_t max_tokens);

std::vector<GenerationId> Ids(const std::string& id);

// Waits for the finish and returns all items on the way: tokens in order, text, and the states of the notices.
struct Output {
  std::vector<TokenId> tokens;
  std::string text;
  std::vector<GenerationState> notices;
  GenerationInfo finish;
};
Output ReadToEnd(TokenLog& log);

}  // namespace fermata

#endif  // FERMATA_TESTS_RUNTIME_RUNTIME_HARNESS_H_
