#include "tests/runtime/runtime_harness.h"

#include <variant>

namespace fermata {

FakeModelRunnerOptions RuntimeHarness::Model(const EngineRuntime::Options& options, FakeModelRunnerOptions model) {
  model.block_count = options.engine.block_count;
  model.block_tokens = options.engine.block_tokens;
  model.vocabulary_size = FakeTokenDecoder::kVocabularySize;
  model.max_step_tokens = options.engine.step_tokens;
  model.max_rows = options.engine.max_running;
  if (!model.before_run) {
    model.before_run = [this](const Batch&) {
      gate_.Pass();
      return absl::OkStatus();
    };
  }
  return model;
}

RuntimeHarness::RuntimeHarness(EngineRuntime::Options options, bool gated)
    : RuntimeHarness(options, FakeModelRunnerOptions()) {
  if (!gated) gate_.Open();
}

RuntimeHarness::RuntimeHarness(EngineRuntime::Options options, FakeModelRunnerOptions model)
    : runtime_(options, decoder_, std::make_unique<FakeModelRunner>(Model(options, std::move(model))), clock_) {}

RuntimeHarness::~RuntimeHarness() { gate_.Open(); }

EnqueueCommand Enqueue(const std::string& id, int32_t max_tokens) {
  EnqueueCommand command;
  command.id = *GenerationId::Parse(id);
  command.spec.prompt = {TokenId{1}, TokenId{2}, TokenId{3}};
  command.spec.sampling.max_tokens = max_tokens;
  command.spec.sampling.temperature = 0;
  command.spec.sampling.ignore_eos = true;
  return command;
}

std::vector<GenerationId> Ids(const std::string& id) { return {*GenerationId::Parse(id)}; }

Output ReadToEnd(TokenLog& log) {
  std::mutex mutex;
  std::condition_variable woken;
  bool awake = false;
  Output output;
  TokenLog::Cursor cursor = log.Enter(0);
  while (true) {
    const TokenLog::Item item = log.Read(cursor, [&] {
      const std::lock_guard<std::mutex> lock(mutex);
      awake = true;
      woken.notify_one();
    });
    if (const auto* chunk = std::get_if<LogChunk>(&item)) {
      output.tokens.insert(output.tokens.end(), chunk->tokens.begin(), chunk->tokens.end());
      output.text += chunk->text;
    } else if (const auto* notice = std::get_if<LogNotice>(&item)) {
      output.notices.push_back(notice->state);
    } else if (const auto* finish = std::get_if<LogFinish>(&item)) {
      output.finish = finish->info;
      return output;
    } else {
      std::unique_lock<std::mutex> lock(mutex);
      woken.wait(lock, [&] { return awake; });
      awake = false;
    }
  }
}

}  // namespace fermata
