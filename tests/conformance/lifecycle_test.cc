// Goal: every verb does in every state what the life cycle's table says, over real gRPC.
// Method: a generation is brought into each state (a long one stays RUNNING, a held slot keeps others QUEUED), then the
// verbs are tried. Scenarios V22, G16, G17, G19 and X5 are among them.

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/conformance/conformance_test_base.h"

namespace fermata {
namespace {

using State = v1::Generation;
using testing::HasSubstr;

class LifecycleTest : public ConformanceTestBase {
 protected:
  static constexpr int kOk = 0;
  static constexpr int kNotFound = grpc::StatusCode::NOT_FOUND;
  static constexpr int kFailedPrecondition = grpc::StatusCode::FAILED_PRECONDITION;

  // "queued", "running", "preempted", "paused" and "finished" are in the states of their names.
  void ServeOneOfEach() {
    EngineOptions options = RoomyOptions();
    options.max_running = 1;
    Serve(options);
    Enqueue("finished", Spec(2));
    AwaitFinished("finished", State::LENGTH);
    Enqueue("preempted", Spec(kForever, /*priority=*/5));
    AwaitState("preempted", State::RUNNING);
    Enqueue("running", Spec(kForever, /*priority=*/1));
    AwaitState("preempted", State::PREEMPTED);
    Enqueue("queued", Spec(5, /*priority=*/9));
    Enqueue("paused", Spec(5, /*priority=*/2), /*hold=*/true);
    EXPECT_EQ(Get("queued").state(), State::QUEUED);
    EXPECT_EQ(Get("running").state(), State::RUNNING);
  }

  const std::vector<std::string> all_ = {"queued", "running", "preempted", "paused", "finished", "unknown"};

  static std::vector<int> Codes(const v1::OperationResults& results) {
    std::vector<int> codes;
    for (const v1::OperationResult& result : results.results()) codes.push_back(result.code());
    return codes;
  }
};

TEST_F(LifecycleTest, PreemptInEveryStateAndTwice) {
  ServeOneOfEach();
  const std::vector<int> codes = {kOk, kOk, kOk, kOk, kFailedPrecondition, kNotFound};
  for (int round = 0; round < 2; ++round) {
    const v1::OperationResults results = Preempt(all_, "why not");
    EXPECT_EQ(Codes(results), codes);
    for (int i = 0; i < results.results_size(); ++i) EXPECT_EQ(results.results(i).generation_id(), all_[i]);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(results.results(i).generation().state(), State::PAUSED);
      EXPECT_EQ(results.results(i).generation().usage().pause_count(), 1);
    }
    EXPECT_EQ(results.results(0).generation().pause().reason(), "why not");
    EXPECT_THAT(results.results(5).message(), HasSubstr("unknown"));
  }
}

TEST_F(LifecycleTest, ContinueInEveryStateAndTwice) {
  ServeOneOfEach();
  for (int round = 0; round < 2; ++round) {
    const v1::OperationResults results = Continue(all_);
    EXPECT_EQ(Codes(results), (std::vector<int>{kOk, kOk, kOk, kOk, kFailedPrecondition, kNotFound}));
    EXPECT_EQ(results.results(0).generation().state(), State::QUEUED);
    EXPECT_EQ(results.results(1).generation().state(), State::RUNNING);
    EXPECT_EQ(results.results(2).generation().state(), State::PREEMPTED);
    EXPECT_EQ(results.results(3).generation().state(), State::QUEUED);  // nothing computed yet
  }
}

TEST_F(LifecycleTest, AbortInEveryStateFreesItsMemory) {
  ServeOneOfEach();
  const v1::OperationResults results = Abort(all_);
  EXPECT_EQ(Codes(results), (std::vector<int>{kOk, kOk, kOk, kOk, kOk, kNotFound}));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(results.results(i).generation().state(), State::FINISHED);
    EXPECT_EQ(results.results(i).generation().finish_reason(), State::ABORTED);
    EXPECT_EQ(results.results(i).generation().kv_block_count(), 0);
  }
  EXPECT_EQ(results.results(4).generation().finish_reason(), State::LENGTH);
  const v1::Engine engine = GetEngine();
  EXPECT_EQ(engine.kv_pools(0).free_count(), engine.kv_pools(0).total_count());
  EXPECT_EQ(engine.state_counts().finished_count(), 5);
}

TEST_F(LifecycleTest, SetPriorityInEveryStateActsAtOnce) {
  ServeOneOfEach();
  const v1::OperationResults results = SetPriority(all_, 3);
  EXPECT_EQ(Codes(results), (std::vector<int>{kOk, kOk, kOk, kOk, kFailedPrecondition, kNotFound}));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(results.results(i).generation().priority(), 3);
  SetPriority({"preempted"}, 0);  // now the most urgent: takes its slot back
  AwaitState("preempted", State::RUNNING);
  EXPECT_EQ(Get("running").state(), State::PREEMPTED);
}

TEST_F(LifecycleTest, EnqueueAgainReturnsTheSameGenerationAndAnotherBodyIsRefused) {
  ServeOneOfEach();
  v1::Generation again;
  EXPECT_TRUE(TryEnqueue("running", Spec(kForever, /*priority=*/1), /*hold=*/false, &again).ok());
  EXPECT_EQ(again.state(), State::RUNNING);
  EXPECT_EQ(TryEnqueue("running", Spec(6)).error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(TryEnqueue("paused", Spec(5, /*priority=*/2), /*hold=*/false).error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  // G19, answered differently: the id stays taken as long as the generation is kept, finished or not.
  EXPECT_EQ(TryEnqueue("finished", Spec(9)).error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_TRUE(TryEnqueue("finished", Spec(2), /*hold=*/false, &again).ok());
  EXPECT_EQ(again.state(), State::FINISHED);
}

TEST_F(LifecycleTest, PauseInMidStreamAndContinueGiveTheSameAsUndisturbed) {
  Serve(RoomyOptions());
  StreamReader undisturbed(data(), Request("undisturbed", Spec(200)));
  const v1::Finish expected = undisturbed.AwaitFinish();
  EXPECT_EQ(expected.finish_reason(), State::LENGTH);

  StreamReader reader(data(), Request("disturbed", Spec(200)));
  for (const size_t count : {1, 5, 40, 111}) {
    reader.AwaitTokens(count);
    const v1::OperationResults paused = Preempt({"disturbed"});
    ASSERT_EQ(Codes(paused), std::vector<int>{kOk});
    const v1::Generation& held = paused.results(0).generation();
    EXPECT_EQ(held.state(), State::PAUSED);
    EXPECT_GT(held.kv_block_count(), 0);
    EXPECT_EQ(held.kv_tier(), v1::KvTier::DEVICE);
    // V22: what was acknowledged comes, and nothing more.
    reader.AwaitTokens(held.usage().output_token_count());
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    EXPECT_EQ(reader.tokens().size(), static_cast<size_t>(held.usage().output_token_count()));
    EXPECT_EQ(Get("disturbed").usage().output_token_count(), held.usage().output_token_count());
    EXPECT_EQ(Codes(Continue({"disturbed"})), std::vector<int>{kOk});
  }
  const v1::Finish finish = reader.AwaitFinish();
  EXPECT_EQ(reader.tokens(), undisturbed.tokens());
  EXPECT_EQ(reader.text(), undisturbed.text());
  EXPECT_EQ(finish.usage().prefilled_token_count(), finish.usage().prompt_token_count());
  EXPECT_EQ(finish.usage().recomputed_token_count(), 0);
  EXPECT_EQ(finish.usage().pause_count(), 4);
}

TEST_F(LifecycleTest, AcknowledgementsAndTokensAreOrderedBySteps) {
  Serve(RoomyOptions());
  StreamReader reader(data(), Request("g", Spec(100)));
  reader.AwaitTokens(10);
  const v1::OperationResults paused = Preempt({"g"});
  const int64_t count = paused.results(0).generation().usage().output_token_count();
  Continue({"g"});
  reader.AwaitFinish();
  for (const v1::GenerateResponse& message : reader.messages()) {
    if (!message.has_chunk() || message.chunk().token_ids().empty()) continue;
    const v1::Chunk& chunk = message.chunk();
    if (chunk.offset() + chunk.token_ids_size() <= count) {
      EXPECT_LE(chunk.step(), paused.step());
    } else {
      EXPECT_GT(chunk.step(), paused.step());
      EXPECT_GE(chunk.offset(), count) << "no chunk spans the pause";
    }
  }
}

TEST_F(LifecycleTest, NoticesFollowTheTokensThatTheyAreAbout) {
  Serve(RoomyOptions());
  StreamReader reader(data(), Request("g", Spec(60)));
  reader.AwaitTokens(5);
  const int64_t count = Preempt({"g"}, "lunch").results(0).generation().usage().output_token_count();
  reader.AwaitNotice(State::PAUSED);
  Continue({"g"});
  reader.AwaitFinish();
  int64_t tokens = 0;
  for (const v1::GenerateResponse& message : reader.messages()) {
    tokens += message.chunk().token_ids_size();
    if (!message.has_notice() || message.notice().state() != State::PAUSED) continue;
    EXPECT_EQ(tokens, count);
    EXPECT_THAT(message.notice().reason(), HasSubstr("lunch"));
  }
}

TEST_F(LifecycleTest, PauseDuringPrefillKeepsTheChunksDone) {
  EngineOptions options = RoomyOptions();
  options.step_tokens = 1;
  Serve(options);
  Enqueue("g", Spec(3, /*priority=*/0, /*prompt_tokens=*/500));
  AwaitState("g", State::RUNNING);
  while (Get("g").usage().prefilled_token_count() < 10) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const v1::Generation held = Preempt({"g"}).results(0).generation();
  EXPECT_GE(held.usage().prefilled_token_count(), 10);
  EXPECT_LT(held.usage().prefilled_token_count(), 500);
  EXPECT_EQ(held.usage().output_token_count(), 0);
  // It has KV: not back to the queue of newcomers.
  const v1::Generation resumed = Continue({"g"}).results(0).generation();
  EXPECT_EQ(resumed.state(), State::PREEMPTED);
  EXPECT_EQ(AwaitFinished("g", State::LENGTH).usage().prefilled_token_count(), 500);
}

TEST_F(LifecycleTest, GenerateWithAKnownIdAttachesFromTheBeginning) {
  Serve(RoomyOptions());
  StreamReader first(data(), Request("g", Spec(50)));
  first.AwaitTokens(10);
  StreamReader retry(data(), Request("g", Spec(50)));
  StreamReader attached(data(), AttachAt("g", 7));
  first.AwaitFinish();
  retry.AwaitFinish();
  attached.AwaitFinish();
  EXPECT_EQ(retry.tokens(), first.tokens());
  EXPECT_EQ(retry.text(), first.text());
  const std::vector<int32_t> all = first.tokens();
  EXPECT_EQ(attached.tokens(), std::vector<int32_t>(all.begin() + 7, all.end()));
  StreamReader other(data(), Request("g", Spec(51)));
  EXPECT_EQ(other.AwaitEnd().error_code(), grpc::StatusCode::ALREADY_EXISTS);
  // On a finished one: the rest and the finish.
  StreamReader late(data(), AttachAt("g", 49));
  EXPECT_EQ(late.AwaitAccepted().state(), State::FINISHED);
  EXPECT_EQ(late.AwaitFinish().usage().output_token_count(), 50);
  EXPECT_EQ(late.tokens().size(), 1u);
}

TEST_F(LifecycleTest, AttachToWhatIsNotThere) {
  Serve(RoomyOptions());
  Enqueue("g", Spec(5), /*hold=*/true);
  StreamReader unknown(data(), AttachAt("nobody", 0));
  EXPECT_EQ(unknown.AwaitEnd().error_code(), grpc::StatusCode::NOT_FOUND);
  StreamReader beyond(data(), AttachAt("g", 1));
  EXPECT_EQ(beyond.AwaitEnd().error_code(), grpc::StatusCode::OUT_OF_RANGE);
  StreamReader negative(data(), AttachAt("g", -1));
  EXPECT_FALSE(negative.AwaitEnd().ok());
}

TEST_F(LifecycleTest, AStreamOfAnAbortedGenerationEndsWellWithItsFinish) {
  Serve(RoomyOptions());
  StreamReader reader(data(), Request("g", Spec(kForever)));
  reader.AwaitTokens(3);
  Preempt({"g"});
  Abort({"g"});
  const v1::Finish finish = reader.AwaitFinish();
  EXPECT_EQ(finish.finish_reason(), State::ABORTED);
  EXPECT_EQ(static_cast<size_t>(finish.usage().output_token_count()), reader.tokens().size());
}

TEST_F(LifecycleTest, TimeoutCountsPausesAndEndsWithDeadline) {
  Serve(RoomyOptions());
  v1::GenerationSpec spec = Spec(kForever);
  spec.mutable_timeout()->set_nanos(300'000'000);
  StreamReader reader(data(), Request("g", spec));
  reader.AwaitTokens(1);
  Preempt({"g"});
  const v1::Finish finish = reader.AwaitFinish();
  EXPECT_EQ(finish.finish_reason(), State::DEADLINE);
  EXPECT_GT(finish.usage().paused_duration().nanos(), 0);
}

TEST_F(LifecycleTest, TheLastReaderLeavingDoesWhatWasAskedFor) {
  Serve(RoomyOptions());
  const auto leave = [&](const std::string& id, v1::OnDisconnect::Action action) {
    v1::GenerationSpec spec = Spec(kForever);
    spec.set_on_disconnect(action);
    StreamReader reader(data(), Request(id, spec));
    reader.AwaitTokens(2);
  };
  leave("abort", v1::OnDisconnect::ABORT);
  AwaitFinished("abort", State::ABORTED);
  leave("default", v1::OnDisconnect::ON_DISCONNECT_UNSPECIFIED);
  AwaitFinished("default", State::ABORTED);
  leave("continue", v1::OnDisconnect::CONTINUE);
  const int64_t seen = Get("continue").usage().output_token_count();
  while (Get("continue").usage().output_token_count() < seen + 20) std::this_thread::yield();
  EXPECT_EQ(Get("continue").state(), State::RUNNING);
  leave("pause", v1::OnDisconnect::PAUSE);
  const v1::Generation paused = AwaitState("pause", State::PAUSED);
  EXPECT_TRUE(paused.pause().has_lease_expire_time());
  StreamReader back(data(), AttachAt("pause", paused.usage().output_token_count()));
  back.AwaitTokens(5);
  EXPECT_EQ(Get("pause").state(), State::RUNNING);
}

TEST_F(LifecycleTest, ListGivesPagesInOrderOfArrivalAndFilters) {
  Serve(RoomyOptions());
  for (int i = 0; i < 7; ++i) {
    v1::GenerationSpec spec = Spec(5);
    spec.set_tenant(i % 2 == 0 ? "even" : "odd");
    (*spec.mutable_labels())["n"] = std::to_string(i);
    Enqueue("g" + std::to_string(i), spec, /*hold=*/true);
  }
  v1::ListGenerationsRequest request;
  request.set_page_size(3);
  request.set_tenant("even");
  request.add_states(State::PAUSED);
  std::vector<std::string> ids;
  do {
    grpc::ClientContext context;
    v1::ListGenerationsResponse response;
    ASSERT_TRUE(control().ListGenerations(&context, request, &response).ok());
    for (const v1::Generation& generation : response.generations()) {
      ids.push_back(generation.generation_id() + "=" + generation.labels().at("n"));
    }
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(ids, (std::vector<std::string>{"g0=0", "g2=2", "g4=4", "g6=6"}));
}

// G16: 32 generations, 8 slots, all paused at once.
TEST_F(LifecycleTest, PausingAllStopsEveryTokenUntilContinue) {
  Serve(RoomyOptions());
  std::vector<std::string> ids;
  for (int i = 0; i < 32; ++i) {
    ids.push_back("g" + std::to_string(i));
    Enqueue(ids.back(), Spec(64));
  }
  const v1::OperationResults paused = Preempt(ids);
  int64_t steps = GetEngine().step_count();
  const int64_t tokens = GetEngine().totals().output_token_count();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(GetEngine().step_count(), steps) << "nothing runs";
  EXPECT_EQ(GetEngine().totals().output_token_count(), tokens);
  // Those that had finished before are not to be continued.
  std::vector<std::string> held;
  for (const v1::OperationResult& result : paused.results()) {
    if (result.code() == kOk) held.push_back(result.generation_id());
  }
  EXPECT_GE(held.size(), 16u);
  Continue(held);
  for (const std::string& id : ids) AwaitFinished(id, State::LENGTH);
}

// G17, with a client that vanishes.
TEST_F(LifecycleTest, VanishedReadersLeaveNothingBehind) {
  Serve(RoomyOptions());
  {
    std::vector<std::unique_ptr<StreamReader>> readers;
    for (int i = 0; i < 16; ++i) {
      readers.push_back(std::make_unique<StreamReader>(data(), Request("g" + std::to_string(i), Spec(kForever / 16))));
    }
    readers[0]->AwaitTokens(3);
  }
  for (int i = 0; i < 16; ++i) AwaitFinished("g" + std::to_string(i), State::ABORTED);
  const v1::Engine engine = GetEngine();
  EXPECT_EQ(engine.kv_pools(0).free_count(), engine.kv_pools(0).total_count());
}

}  // namespace
}  // namespace fermata
