// Goal: selectors choose, and Apply does several verbs at one step boundary: all, or each by itself, or none.
// Method: over real gRPC; what was not done is read from states, usages and steps.

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/conformance/conformance_test_base.h"

namespace fermata {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using State = v1::Generation;

std::vector<int> Codes(const v1::OperationResults& results) {
  std::vector<int> codes;
  for (const v1::OperationResult& result : results.results()) codes.push_back(result.code());
  return codes;
}

std::vector<std::string> Ids(const v1::OperationResults& results) {
  std::vector<std::string> ids;
  for (const v1::OperationResult& result : results.results()) ids.push_back(result.generation_id());
  return ids;
}

class ApplyTest : public ConformanceTestBase {
 protected:
  grpc::Status TryApply(const v1::ApplyRequest& request, v1::OperationResults* results) {
    grpc::ClientContext context;
    return control().Apply(&context, request, results);
  }

  v1::OperationResults Apply(const v1::ApplyRequest& request) {
    v1::OperationResults results;
    const grpc::Status status = TryApply(request, &results);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return results;
  }

  v1::GenerationSpec SpecOf(const std::string& tenant, const std::string& traffic_class) {
    v1::GenerationSpec spec = Spec(kForever);
    spec.set_tenant(tenant);
    spec.set_traffic_class(traffic_class);
    return spec;
  }
};

TEST_F(ApplyTest, SelectorsChooseByTenantClassAndState) {
  Serve(RoomyOptions());
  Enqueue("a", SpecOf("red", "batch"));
  Enqueue("b", SpecOf("blue", "batch"));
  Enqueue("c", SpecOf("red", "interactive"));
  Enqueue("d", SpecOf("red", "batch"));
  Abort({"d"});
  v1::PreemptRequest request;
  request.mutable_selector()->set_tenant("red");
  v1::OperationResults results;
  grpc::ClientContext context;
  ASSERT_TRUE(control().Preempt(&context, request, &results).ok());
  EXPECT_THAT(Ids(results), ElementsAre("a", "c"));
  v1::ContinueRequest resume;
  resume.mutable_selector()->add_states(State::PAUSED);
  resume.mutable_selector()->set_traffic_class("batch");
  v1::OperationResults resumed;
  grpc::ClientContext second;
  ASSERT_TRUE(control().Continue(&second, resume, &resumed).ok());
  EXPECT_THAT(Ids(resumed), ElementsAre("a"));
  EXPECT_EQ(Get("c").state(), State::PAUSED);
  // Nobody matches any more: that is no error.
  v1::OperationResults none;
  grpc::ClientContext third;
  ASSERT_TRUE(control().Continue(&third, resume, &none).ok());
  EXPECT_EQ(none.results_size(), 0);
}

TEST_F(ApplyTest, ASwapHappensAtOneBoundary) {
  EngineOptions options = RoomyOptions();
  options.max_running = 1;
  Serve(options);
  StreamReader out(data(), Request("out", Spec(kForever)));
  out.AwaitTokens(5);
  StreamReader in(data(), Request("in", Spec(20)));
  in.AwaitAccepted();
  v1::ApplyRequest swap;
  swap.set_atomic(true);
  swap.add_operations()->mutable_preempt()->add_generation_ids("out");
  swap.add_operations()->mutable_set_priority()->add_generation_ids("in");
  swap.mutable_operations(1)->mutable_set_priority()->set_priority(-1);
  const v1::OperationResults results = Apply(swap);
  EXPECT_THAT(Codes(results), ElementsAre(0, 0));
  EXPECT_EQ(results.results(0).generation().state(), State::PAUSED);
  in.AwaitFinish();
  // No step between the last of the one and the first of the other.
  int64_t first = 0;
  for (const v1::GenerateResponse& message : in.messages()) {
    if (message.has_chunk() && first == 0) first = message.chunk().step();
  }
  EXPECT_EQ(first, results.step() + 1);
}

TEST_F(ApplyTest, OperationsAreJudgedOnTheOutcomeOfThoseBefore) {
  Serve(RoomyOptions());
  v1::ApplyRequest request;
  request.set_atomic(true);
  v1::EnqueueRequest* enqueue = request.add_operations()->mutable_enqueue();
  enqueue->set_generation_id("new");
  *enqueue->mutable_spec() = SpecOf("red", "");
  request.add_operations()->mutable_preempt()->mutable_selector()->set_tenant("red");
  request.add_operations()->mutable_resume()->add_generation_ids("new");
  request.add_operations()->mutable_abort()->add_generation_ids("new");
  const v1::OperationResults results = Apply(request);
  EXPECT_THAT(Codes(results), ElementsAre(0, 0, 0, 0));
  EXPECT_EQ(results.results(1).generation().state(), State::PAUSED);
  EXPECT_EQ(results.results(2).generation().state(), State::QUEUED);
  EXPECT_EQ(results.results(3).generation().state(), State::FINISHED);
}

TEST_F(ApplyTest, AtomicMeansAllOrNone) {
  Serve(RoomyOptions());
  Enqueue("a", SpecOf("red", ""));
  Enqueue("b", SpecOf("red", ""), /*hold=*/true);
  v1::ApplyRequest request;
  request.add_operations()->mutable_preempt()->add_generation_ids("a");
  request.add_operations()->mutable_resume()->add_generation_ids("b");
  request.mutable_operations(1)->mutable_resume()->add_generation_ids("nobody");
  v1::EnqueueRequest* enqueue = request.add_operations()->mutable_enqueue();
  enqueue->set_generation_id("c");
  *enqueue->mutable_spec() = Spec(3);
  request.set_atomic(true);
  const v1::OperationResults none = Apply(request);
  EXPECT_THAT(Codes(none),
              ElementsAre(StatusCode::ABORTED, StatusCode::ABORTED, StatusCode::NOT_FOUND, StatusCode::ABORTED));
  EXPECT_THAT(none.results(0).message(), HasSubstr("nobody"));
  EXPECT_NE(Get("a").state(), State::PAUSED);
  EXPECT_EQ(Get("a").usage().pause_count(), 0);
  EXPECT_EQ(Get("b").state(), State::PAUSED);
  request.set_atomic(false);
  const v1::OperationResults each = Apply(request);
  EXPECT_THAT(Codes(each), ElementsAre(0, 0, StatusCode::NOT_FOUND, 0));
  EXPECT_EQ(Get("a").state(), State::PAUSED);
  AwaitFinished("c", State::LENGTH);
}

TEST_F(ApplyTest, AThousandOperationsTakeEffectAtOneStep) {
  EngineOptions options = RoomyOptions();
  options.max_running = 4;
  Serve(options);
  v1::ApplyRequest request;
  for (int i = 0; i < 1000; ++i) {
    v1::EnqueueRequest* enqueue = request.add_operations()->mutable_enqueue();
    enqueue->set_generation_id("g" + std::to_string(i));
    *enqueue->mutable_spec() = Spec(1);
    enqueue->set_hold(true);
  }
  request.set_atomic(true);
  const v1::OperationResults results = Apply(request);
  ASSERT_EQ(results.results_size(), 1000);
  for (const v1::OperationResult& result : results.results()) EXPECT_EQ(result.generation().step(), results.step());
}

TEST_F(ApplyTest, ArgumentsAreChecked) {
  Serve(RoomyOptions());
  const auto expect = [&](const v1::ApplyRequest& request, StatusCode code, const std::string& name) {
    v1::OperationResults results;
    const grpc::Status status = TryApply(request, &results);
    EXPECT_EQ(status.error_code(), code) << name;
    EXPECT_THAT(status.error_message(), HasSubstr(name));
  };
  v1::ApplyRequest request;
  expect(request, StatusCode::INVALID_ARGUMENT, "operations");
  request.add_operations();
  expect(request, StatusCode::INVALID_ARGUMENT, "operations[0]");
  request.mutable_operations(0)->mutable_abort()->add_generation_ids("g");
  request.mutable_operations(0)->mutable_abort()->set_session_id("s");
  expect(request, StatusCode::INVALID_ARGUMENT, "session_id");
  request.mutable_operations(0)->mutable_abort()->clear_session_id();
  request.set_session_id("nobody");
  request.set_epoch(1);
  expect(request, StatusCode::FAILED_PRECONDITION, "nobody");
  request.clear_session_id();
  request.clear_epoch();
  for (int i = 0; i < 10000; ++i) request.mutable_operations(0)->mutable_abort()->add_generation_ids("g");
  expect(request, StatusCode::INVALID_ARGUMENT, "10000");
  request.mutable_operations(0)->mutable_abort()->mutable_generation_ids()->RemoveLast();
  request.add_operations()->mutable_abort()->add_generation_ids("g");
  expect(request, StatusCode::FAILED_PRECONDITION, "10000");
}

}  // namespace
}  // namespace fermata
