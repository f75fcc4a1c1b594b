#include "tests/core/engine_harness.h"

#include <algorithm>
#include <variant>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace fermata {

ByteDecoder::ByteDecoder() {
  for (int byte = 0; byte < 256; ++byte) bytes_.emplace_back(1, static_cast<char>(byte));
  bytes_.emplace_back();
}

absl::Status ScriptedRunner::Run(const Batch& batch, StepOutput* output) {
  rows.clear();
  output->sampled.clear();
  for (size_t i = 0; i < batch.slices.size(); ++i) {
    const BatchSlice& slice = batch.slices[i];
    rows.push_back({slice.key, slice.first_position, slice.token_count, slice.sample});
    if (!slice.sample) continue;
    const size_t offset = slice.context.size() - slice.prompt_token_count;
    const std::vector<TokenId>& script_of_row = script[slice.key];
    SampledToken& sampled = output->sampled.emplace_back();
    sampled.slice = static_cast<int32_t>(i);
    sampled.token = offset < script_of_row.size() ? script_of_row[offset] : kFiller;
    if (row_errors.count(slice.key) > 0) sampled.status = row_errors[slice.key];
  }
  return std::exchange(next_status, absl::OkStatus());
}

GenerationId IdOf(absl::string_view text) { return *GenerationId::Parse(text); }

EngineHarness::EngineHarness(const EngineOptions& options) : engine_(options, decoder_) {}

OperationResult EngineHarness::Enqueue(const std::string& id, const Job& job) {
  EnqueueCommand command;
  command.id = IdOf(id);
  command.body_digest = job.body;
  command.hold = job.hold;
  command.attach_reader = job.attach_reader;
  command.spec.prompt.assign(job.prompt_tokens, TokenId{'p'});
  command.spec.priority = job.priority;
  command.spec.on_disconnect = job.on_disconnect;
  command.spec.timeout = job.timeout;
  command.spec.sampling.max_tokens = job.max_tokens;
  command.spec.sampling.stop = job.stop;
  command.spec.sampling.stop_token_ids = job.stop_token_ids;
  command.spec.sampling.ignore_eos = job.ignore_eos;
  return One(std::move(command));
}

OperationResult EngineHarness::Preempt(const std::string& id, const std::string& reason, KvTier tier) {
  return One(PreemptCommand{.ids = {IdOf(id)}, .reason = reason, .tier = tier});
}

std::vector<std::string> EngineHarness::Moves() const {
  std::vector<std::string> lines;
  for (const KvMove& move : moves_) {
    lines.push_back(
        absl::StrCat(move.generation_id.value(), " ", Name(move.from), ">", Name(move.to), " ", move.block_count));
  }
  return lines;
}

Report EngineHarness::FinishMove(absl::Status status) {
  const KvMoveId id = moves_.at(0).id;
  moves_.erase(moves_.begin());
  return Boundary({KvMoveDone{id, std::move(status)}});
}

void EngineHarness::FinishMoves() {
  while (!moves_.empty()) FinishMove();
}

OperationResult EngineHarness::Continue(const std::string& id) { return One(ContinueCommand{.ids = {IdOf(id)}}); }

OperationResult EngineHarness::Abort(const std::string& id) { return One(AbortCommand{.ids = {IdOf(id)}}); }

OperationResult EngineHarness::SetPriority(const std::string& id, int priority) {
  return One(SetPriorityCommand{.ids = {IdOf(id)}, .priority = priority});
}

OperationResult EngineHarness::Attach(const std::string& id, int64_t offset) {
  return One(AttachCommand{.id = IdOf(id), .offset = offset});
}

OperationResult EngineHarness::Get(const std::string& id) { return One(GetGenerationCommand{.id = IdOf(id)}); }

void EngineHarness::Detach(const std::string& id) { Boundary({DetachCommand{Key(id)}}); }

EngineInfo EngineHarness::GetEngine() {
  const Report report = Boundary({GetEngineCommand{}});
  return std::get<EngineInfo>(report.replies.at(0).result);
}

OperationResult EngineHarness::One(Command command) {
  const Report report = Boundary({std::move(command)});
  EXPECT_EQ(report.replies.size(), 1u);
  return std::get<std::vector<OperationResult>>(report.replies.at(0).result).at(0);
}

Report EngineHarness::Boundary(std::vector<Command> commands) {
  Report report = engine_.Boundary(now_, std::move(commands));
  Take(report);
  return report;
}

Report EngineHarness::Step(int count) {
  Report report;
  for (int i = 0; i < count; ++i) {
    runner_.rows.clear();
    report = engine_.Step(now_, {}, runner_);
    Take(report);
  }
  return report;
}

void EngineHarness::RunUntilIdle() {
  int steps = 0;
  while (engine_.HasWork() && steps < 10000) {
    Step();
    ++steps;
  }
  EXPECT_FALSE(engine_.HasWork());
}

void EngineHarness::Take(const Report& report) {
  EXPECT_EQ(engine_.CheckInvariants(), absl::OkStatus());
  for (const Event& event : report.events) {
    if (const auto* change = std::get_if<StateChanged>(&event)) {
      if (change->from == GenerationState::kNone) {
        keys_[change->info->id.value()] = change->key;
        ids_[change->key] = change->info->id.value();
      }
      const std::string& id = ids_[change->key];
      if (change->from == GenerationState::kQueued && change->to == GenerationState::kRunning) started_.push_back(id);
      if (change->to == GenerationState::kFinished) finished_.push_back(id);
    } else if (const auto* sampled = std::get_if<TokenSampled>(&event)) {
      EXPECT_EQ(sampled->offset, static_cast<int64_t>(tokens_[sampled->key].size()));
      tokens_[sampled->key].push_back(sampled->token);
      text_[sampled->key] += sampled->text;
    } else if (const auto* released = std::get_if<TextReleased>(&event)) {
      text_[released->key] += released->text;
    } else if (const auto* moved = std::get_if<KvMoved>(&event)) {
      moved_.push_back(*moved);
    }
  }
  moves_.insert(moves_.end(), report.moves.begin(), report.moves.end());
  cancelled_moves_.insert(cancelled_moves_.end(), report.cancelled_moves.begin(), report.cancelled_moves.end());
  for (const GenerationId& id : report.discarded_files) discarded_files_.push_back(id.value());
}

void EngineHarness::Script(const std::string& id, absl::string_view bytes, bool end) {
  std::vector<TokenId>& script = runner_.script[Key(id)];
  for (const char c : bytes) script.push_back(TokenId{static_cast<unsigned char>(c)});
  if (end) script.push_back(ByteDecoder::kEnd);
}

std::vector<std::string> EngineHarness::Batch() const {
  std::vector<std::string> ids;
  for (const ScriptedRunner::Row& row : runner_.rows) ids.push_back(ids_.at(row.key));
  return ids;
}

int EngineHarness::BatchTokens(const std::string& id) const {
  for (const ScriptedRunner::Row& row : runner_.rows) {
    if (row.key == Key(id)) return row.token_count;
  }
  return 0;
}

}  // namespace fermata
