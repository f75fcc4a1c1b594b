// Goal: a generation that is held on stop, or paused, continues with more: what was appended is prefilled, nothing
// else, and what follows is what would follow the same context in any other generation.
// Method: over real gRPC with a fake model whose next token depends on the whole context. Outputs are compared with
// those of generations whose prompt is that context.

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/conformance/conformance_test_base.h"

namespace fermata {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;
using State = v1::Generation;

constexpr int32_t kPromptTokens = 4;

class ContinueTest : public ConformanceTestBase {
 protected:
  static v1::GenerationSpec HeldSpec(int32_t max_tokens) {
    v1::GenerationSpec spec = Spec(max_tokens, /*priority=*/0, kPromptTokens);
    spec.set_hold_on_stop(true);
    spec.mutable_sampling()->set_seed(7);
    return spec;
  }

  static v1::ContinueRequest More(const std::string& id, const std::vector<int32_t>& append, int32_t max_tokens,
                                  const std::string& append_id = "") {
    v1::ContinueRequest request;
    request.add_generation_ids(id);
    for (const int32_t token : append) request.mutable_append()->mutable_token_ids()->add_token_ids(token);
    if (max_tokens > 0) request.set_max_tokens(max_tokens);
    request.set_append_id(append_id);
    return request;
  }

  grpc::Status TryContinue(const v1::ContinueRequest& request, v1::OperationResults* results) {
    grpc::ClientContext context;
    return control().Continue(&context, request, results);
  }

  v1::OperationResult Continue1(const v1::ContinueRequest& request) {
    v1::OperationResults results;
    const grpc::Status status = TryContinue(request, &results);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return results.results_size() == 1 ? results.results(0) : v1::OperationResult();
  }

  // The output of a generation with this context as its prompt.
  std::vector<int32_t> OutputAfter(const v1::GenerationSpec& like, const std::vector<int32_t>& context,
                                   int32_t max_tokens) {
    v1::GenerationSpec spec = like;
    spec.set_hold_on_stop(false);
    spec.mutable_sampling()->set_max_tokens(max_tokens);
    spec.mutable_prompt()->mutable_token_ids()->clear_token_ids();
    for (const int32_t token : context) spec.mutable_prompt()->mutable_token_ids()->add_token_ids(token);
    StreamReader reader(data(), Request("", spec));
    reader.AwaitFinish();
    return reader.tokens();
  }
};

TEST_F(ContinueTest, HeldOnLengthItGoesOnAsIfItHadHadMoreTokensFromTheStart) {
  Serve(RoomyOptions());
  StreamReader reader(data(), Request("g", HeldSpec(10)));
  reader.AwaitNotice(State::PAUSED);
  EXPECT_EQ(reader.tokens().size(), 10u);
  const v1::Generation held = Get("g");
  EXPECT_EQ(held.state(), State::PAUSED);
  EXPECT_EQ(held.pause().reason(), "length");
  EXPECT_EQ(held.finish_reason(), State::FINISH_REASON_UNSPECIFIED);
  const v1::OperationResult too_few = Continue1(More("g", {}, 0));
  EXPECT_EQ(too_few.code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(too_few.message(), HasSubstr("max_tokens"));
  EXPECT_EQ(Continue1(More("g", {}, 25)).code(), 0);
  reader.AwaitNotice(State::RUNNING);
  AwaitState("g", State::PAUSED);
  Abort({"g"});
  const v1::Finish finish = reader.AwaitFinish();
  EXPECT_EQ(finish.finish_reason(), State::ABORTED);
  EXPECT_EQ(finish.usage().prefilled_token_count(), kPromptTokens);
  EXPECT_EQ(finish.usage().recomputed_token_count(), 0);
  v1::GenerationSpec whole = HeldSpec(25);
  whole.set_hold_on_stop(false);
  StreamReader undisturbed(data(), Request("", whole));
  undisturbed.AwaitFinish();
  EXPECT_EQ(reader.tokens(), undisturbed.tokens());
}

TEST_F(ContinueTest, OnlyWhatIsAppendedIsPrefilled) {
  EngineOptions options = RoomyOptions();
  options.step_tokens = 3;  // so that the append is prefilled in pieces
  Serve(options);
  const v1::GenerationSpec spec = HeldSpec(10);
  StreamReader reader(data(), Request("g", spec));
  reader.AwaitNotice(State::PAUSED);
  std::vector<int32_t> context(spec.prompt().token_ids().token_ids().begin(),
                               spec.prompt().token_ids().token_ids().end());
  const std::vector<int32_t> first = reader.tokens();
  context.insert(context.end(), first.begin(), first.end());
  const std::vector<int32_t> append = {5, 6, 7, 8, 9, 10, 11};
  context.insert(context.end(), append.begin(), append.end());
  const v1::OperationResult result = Continue1(More("g", append, 30));
  EXPECT_EQ(result.generation().state(), State::PREEMPTED);
  EXPECT_EQ(result.generation().usage().appended_token_count(), 7);
  reader.AwaitTokens(30);
  const v1::Usage usage = AwaitState("g", State::PAUSED).usage();
  EXPECT_EQ(usage.prompt_token_count(), kPromptTokens);
  EXPECT_EQ(usage.prefilled_token_count(), kPromptTokens + 7);
  EXPECT_EQ(usage.recomputed_token_count(), 0);
  EXPECT_EQ(usage.output_token_count(), 30);
  const std::vector<int32_t> all = reader.tokens();
  EXPECT_EQ(std::vector<int32_t>(all.begin() + 10, all.end()), OutputAfter(spec, context, 20));
}

TEST_F(ContinueTest, AnAppendInMidPrefillFollowsThePrompt) {
  Serve(RoomyOptions());
  v1::GenerationSpec spec = HeldSpec(5);
  Enqueue("g", spec, /*hold=*/true);
  EXPECT_EQ(Continue1(More("g", {1, 2, 3}, 0)).generation().state(), State::QUEUED);
  StreamReader reader(data(), AttachAt("g", 0));
  reader.AwaitNotice(State::PAUSED);
  std::vector<int32_t> context(spec.prompt().token_ids().token_ids().begin(),
                               spec.prompt().token_ids().token_ids().end());
  for (const int32_t token : {1, 2, 3}) context.push_back(token);
  EXPECT_EQ(reader.tokens(), OutputAfter(spec, context, 5));
  EXPECT_EQ(Get("g").usage().prefilled_token_count(), kPromptTokens + 3);
}

TEST_F(ContinueTest, TheSameAppendIdAgainChangesNothing) {
  Serve(RoomyOptions());
  Enqueue("g", HeldSpec(5));
  AwaitState("g", State::PAUSED);
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(Continue1(More("g", {1, 2}, 9, "turn-1")).code(), 0);
    if (round == 1) AwaitState("g", State::PAUSED);
  }
  EXPECT_EQ(AwaitState("g", State::PAUSED).usage().appended_token_count(), 2);
  EXPECT_EQ(Continue1(More("g", {1, 2}, 12, "turn-2")).generation().usage().appended_token_count(), 4);
  AwaitState("g", State::PAUSED);
  Abort({"g"});
  EXPECT_EQ(Continue1(More("g", {1, 2}, 12, "turn-2")).code(), 0) << "also after the end";
  EXPECT_EQ(Continue1(More("g", {1, 2}, 12, "turn-3")).code(), StatusCode::FAILED_PRECONDITION);
}

TEST_F(ContinueTest, ANewTotalMayBeSmallerThanTheOldOne) {
  Serve(RoomyOptions());
  StreamReader reader(data(), Request("g", Spec(kForever)));
  reader.AwaitTokens(5);
  const int64_t count = Preempt({"g"}).results(0).generation().usage().output_token_count();
  EXPECT_EQ(Continue1(More("g", {}, static_cast<int32_t>(count) + 3)).code(), 0);
  EXPECT_EQ(reader.AwaitFinish().finish_reason(), State::LENGTH);
  EXPECT_EQ(reader.tokens().size(), static_cast<size_t>(count) + 3);
}

TEST_F(ContinueTest, AnAppendIsNeverDroppedSilently) {
  Serve(RoomyOptions());
  Enqueue("g", Spec(kForever));
  AwaitState("g", State::RUNNING);
  const v1::OperationResult running = Continue1(More("g", {1}, 0));
  EXPECT_EQ(running.code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(running.message(), HasSubstr("RUNNING"));
  Preempt({"g"});
  const v1::OperationResult too_long = Continue1(More("g", {}, 1 << 30));
  EXPECT_EQ(too_long.code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(too_long.message(), HasSubstr("--context_tokens"));
  EXPECT_EQ(Get("g").state(), State::PAUSED) << "it stays as it was";
  const auto expect = [&](const v1::ContinueRequest& request, const std::string& name) {
    v1::OperationResults results;
    const grpc::Status status = TryContinue(request, &results);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << name;
    EXPECT_THAT(status.error_message(), HasSubstr(name));
  };
  v1::ContinueRequest two = More("g", {1}, 0);
  two.add_generation_ids("h");
  expect(two, "generation_id");
  expect(More("g", {-1}, 0), "token_ids");
  expect(More("g", {}, 0, "id without append"), "append_id");
  v1::ContinueRequest empty = More("g", {}, 0);
  empty.mutable_append()->set_text("");
  expect(empty, "append");
  empty.mutable_append()->set_text("x");
  empty.set_append_id(std::string(129, 'x'));
  expect(empty, "append_id");
  empty.clear_append();
  empty.clear_append_id();
  empty.set_max_tokens(0);
  expect(empty, "max_tokens");
}

TEST_F(ContinueTest, HeldOnStopAndLetGoByALeaseItEndsAsItWouldHave) {
  Serve(RoomyOptions());
  v1::GenerationSpec spec = HeldSpec(40);
  StreamReader undisturbed(data(), Request("", [&] {
                             v1::GenerationSpec plain = spec;
                             plain.set_hold_on_stop(false);
                             return plain;
                           }()));
  undisturbed.AwaitFinish();
  const std::vector<int32_t> tokens = undisturbed.tokens();
  spec.mutable_sampling()->add_stop_token_ids(tokens[6]);
  StreamReader reader(data(), Request("g", spec));
  reader.AwaitNotice(State::PAUSED);
  EXPECT_EQ(Get("g").pause().reason(), "stop");
  const size_t count = reader.tokens().size();
  EXPECT_LE(count, 7u);
  v1::PreemptRequest lease;
  lease.add_generation_ids("g");
  lease.mutable_lease()->set_nanos(20'000'000);
  v1::OperationResults results;
  grpc::ClientContext context;
  ASSERT_TRUE(control().Preempt(&context, lease, &results).ok());
  EXPECT_EQ(reader.AwaitFinish().finish_reason(), State::STOP);
  EXPECT_EQ(reader.tokens().size(), count);
}

TEST_F(ContinueTest, WhereEverybodyWaitsForMoreBlocksTheLeastUrgentGivesWay) {
  EngineOptions options = RoomyOptions();
  options.block_tokens = 4;
  options.block_count = 10;
  options.context_tokens = 40;
  Serve(options);
  Enqueue("a", HeldSpec(16));
  AwaitState("a", State::PAUSED);
  Enqueue("b", HeldSpec(16));
  AwaitState("b", State::PAUSED);
  // Five blocks each; now each wants all ten.
  v1::ApplyRequest both;
  for (const char* id : {"a", "b"}) *both.add_operations()->mutable_resume() = More(id, {}, 36);
  v1::OperationResults results;
  grpc::ClientContext context;
  ASSERT_TRUE(control().Apply(&context, both, &results).ok());
  EXPECT_EQ(results.results(0).code() + results.results(1).code(), 0);
  EXPECT_THAT(AwaitFinished("b", State::ERROR).error_message(), HasSubstr("--kv_bytes"));
  EXPECT_EQ(AwaitState("a", State::PAUSED).usage().output_token_count(), 36);
}

}  // namespace
}  // namespace fermata
