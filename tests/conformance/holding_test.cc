// Goal: who holds a pause, and when it ends by itself, is as the API promises.
// Method: leases and sessions over real gRPC, with short times. What a timer does is waited for, never timed: only that
// it does not come early is read from timestamps.

#include <chrono>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/conformance/conformance_test_base.h"

namespace fermata {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;
using State = v1::Generation;

class HoldingTest : public ConformanceTestBase {
 protected:
  v1::Session Open(const std::string& id, int64_t ttl_seconds = 60, bool takeover = false) {
    v1::OpenSessionRequest request;
    request.set_session_id(id);
    request.mutable_ttl()->set_seconds(ttl_seconds);
    request.set_takeover(takeover);
    v1::Session session;
    grpc::ClientContext context;
    const grpc::Status status = control().OpenSession(&context, request, &session);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return session;
  }

  grpc::Status TryClose(const v1::Session& session) {
    v1::CloseSessionRequest request;
    request.set_session_id(session.session_id());
    request.set_epoch(session.epoch());
    grpc::ClientContext context;
    v1::Session closed;
    return control().CloseSession(&context, request, &closed);
  }

  static v1::PreemptRequest PreemptFor(const v1::Session& session, const std::string& id) {
    v1::PreemptRequest request;
    request.add_generation_ids(id);
    request.set_session_id(session.session_id());
    request.set_epoch(session.epoch());
    return request;
  }

  grpc::Status TryPreempt(const v1::PreemptRequest& request, v1::OperationResults* results) {
    grpc::ClientContext context;
    return control().Preempt(&context, request, results);
  }

  v1::OperationResult Preempt1(const v1::PreemptRequest& request) {
    v1::OperationResults results;
    const grpc::Status status = TryPreempt(request, &results);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return results.results_size() == 1 ? results.results(0) : v1::OperationResult();
  }

  // Continue or Abort of one id for a session: the code of its result.
  template <typename Request>
  int CodeOf(grpc::Status (v1::ControlService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                              v1::OperationResults*),
             const v1::Session& session, const std::string& id) {
    Request request;
    request.add_generation_ids(id);
    request.set_session_id(session.session_id());
    request.set_epoch(session.epoch());
    grpc::ClientContext context;
    v1::OperationResults results;
    const grpc::Status status = (control().*method)(&context, request, &results);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return results.results_size() == 1 ? results.results(0).code() : -1;
  }
};

TEST_F(HoldingTest, ALeaseEndsByContinueAndIsNeverEarly) {
  Serve(RoomyOptions());
  Enqueue("g", Spec(kForever));
  AwaitState("g", State::RUNNING);
  v1::PreemptRequest request;
  request.add_generation_ids("g");
  request.mutable_lease()->set_nanos(200'000'000);
  const v1::Pause pause = Preempt1(request).generation().pause();
  ASSERT_TRUE(pause.has_lease_expire_time());
  EXPECT_EQ(pause.on_lease_expiry(), v1::OnLeaseExpiry::CONTINUE);
  const v1::Generation resumed = AwaitState("g", State::RUNNING);
  EXPECT_GE(resumed.usage().paused_duration().nanos() + resumed.usage().paused_duration().seconds() * 1'000'000'000,
            200'000'000);
  EXPECT_EQ(resumed.usage().recomputed_token_count(), 0);
}

TEST_F(HoldingTest, ALeaseCanAbortAndBeRenewed) {
  Serve(RoomyOptions());
  Enqueue("g", Spec(kForever), /*hold=*/true);
  v1::PreemptRequest request;
  request.add_generation_ids("g");
  request.mutable_lease()->set_seconds(3600);
  request.set_on_lease_expiry(v1::OnLeaseExpiry::ABORT);
  const v1::Pause far = Preempt1(request).generation().pause();
  EXPECT_EQ(far.on_lease_expiry(), v1::OnLeaseExpiry::ABORT);
  request.mutable_lease()->set_seconds(0);
  request.mutable_lease()->set_nanos(50'000'000);
  const v1::Pause near = Preempt1(request).generation().pause();
  EXPECT_LT(near.lease_expire_time().seconds(), far.lease_expire_time().seconds());
  EXPECT_THAT(AwaitFinished("g", State::ABORTED).error_message(), HasSubstr("lease"));
}

TEST_F(HoldingTest, AHoldAtEnqueueMayHaveALease) {
  Serve(RoomyOptions());
  v1::EnqueueRequest request;
  request.set_generation_id("g");
  *request.mutable_spec() = Spec(2);
  request.mutable_lease()->set_nanos(50'000'000);
  v1::Generation generation;
  grpc::ClientContext refused;
  const grpc::Status status = control().Enqueue(&refused, request, &generation);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("hold"));
  request.set_hold(true);
  grpc::ClientContext context;
  ASSERT_TRUE(control().Enqueue(&context, request, &generation).ok());
  EXPECT_EQ(generation.state(), State::PAUSED);
  AwaitFinished("g", State::LENGTH);
}

TEST_F(HoldingTest, APauseEndsWithItsSession) {
  Serve(RoomyOptions());
  for (const char* id : {"goes-on", "ends", "operators"}) Enqueue(id, Spec(kForever), /*hold=*/id[0] == 'o');
  const v1::Session session = Open("orchestrator");
  EXPECT_EQ(Preempt1(PreemptFor(session, "goes-on")).generation().pause().session_id(), "orchestrator");
  v1::PreemptRequest request = PreemptFor(session, "ends");
  request.set_on_lease_expiry(v1::OnLeaseExpiry::ABORT);
  Preempt1(request);
  // No change for what an operator holds.
  EXPECT_EQ(Preempt1(PreemptFor(session, "operators")).generation().pause().session_id(), "");
  EXPECT_TRUE(TryClose(session).ok());
  AwaitState("goes-on", State::RUNNING);
  EXPECT_THAT(AwaitFinished("ends", State::ABORTED).error_message(), HasSubstr("orchestrator"));
  EXPECT_EQ(Get("operators").state(), State::PAUSED);
  EXPECT_EQ(TryClose(session).error_code(), StatusCode::FAILED_PRECONDITION);
}

TEST_F(HoldingTest, ASessionThatIsNotKeptAliveDies) {
  Serve(RoomyOptions());
  Enqueue("g", Spec(kForever));
  const v1::Session session = Open("brief", /*ttl_seconds=*/1);
  EXPECT_EQ(Preempt1(PreemptFor(session, "g")).code(), StatusCode::OK);
  const v1::Generation resumed = AwaitState("g", State::RUNNING);
  EXPECT_GT(resumed.usage().paused_duration().seconds() + resumed.usage().paused_duration().nanos(), 0);
  v1::OperationResults results;
  EXPECT_EQ(TryPreempt(PreemptFor(session, "g"), &results).error_code(), StatusCode::FAILED_PRECONDITION);
}

TEST_F(HoldingTest, ASessionThatIsKeptAliveLivesOn) {
  Serve(RoomyOptions());
  Enqueue("g", Spec(kForever));
  const v1::Session session = Open("steady", /*ttl_seconds=*/1);
  Preempt1(PreemptFor(session, "g"));
  grpc::ClientContext context;
  const auto stream = control().KeepSessionAlive(&context);
  v1::KeepSessionAliveRequest sign;
  sign.set_session_id(session.session_id());
  sign.set_epoch(session.epoch());
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(stream->Write(sign));
    v1::Session answer;
    ASSERT_TRUE(stream->Read(&answer));
    EXPECT_EQ(answer.epoch(), session.epoch());
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  // After nearly two of its ttl.
  EXPECT_EQ(Get("g").state(), State::PAUSED);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(Get("g").state(), State::PAUSED) << "the stream's end ends no session";
}

TEST_F(HoldingTest, KeepingAnUnknownSessionAliveIsRefused) {
  Serve(RoomyOptions());
  grpc::ClientContext context;
  const auto stream = control().KeepSessionAlive(&context);
  v1::KeepSessionAliveRequest sign;
  sign.set_session_id("nobody");
  sign.set_epoch(1);
  stream->Write(sign);
  v1::Session answer;
  EXPECT_FALSE(stream->Read(&answer));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("nobody"));
}

TEST_F(HoldingTest, TakeoverInheritsThePausesAndShutsOutTheOldEpoch) {
  Serve(RoomyOptions());
  Enqueue("g", Spec(kForever));
  const v1::Session old = Open("fair");
  Preempt1(PreemptFor(old, "g"));
  v1::OpenSessionRequest again;
  again.set_session_id("fair");
  grpc::ClientContext context;
  v1::Session none;
  EXPECT_EQ(control().OpenSession(&context, again, &none).error_code(), StatusCode::ALREADY_EXISTS);
  const v1::Session present = Open("fair", 60, /*takeover=*/true);
  EXPECT_GT(present.epoch(), old.epoch());
  EXPECT_EQ(Get("g").pause().session_id(), "fair");
  v1::OperationResults results;
  const grpc::Status refused = TryPreempt(PreemptFor(old, "g"), &results);
  EXPECT_EQ(refused.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), HasSubstr("taken over"));
  EXPECT_EQ(TryClose(old).error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(CodeOf(&v1::ControlService::Stub::Continue, present, "g"), StatusCode::OK);
}

TEST_F(HoldingTest, AnotherSessionMayNotTouchAPauseButAnOperatorMay) {
  Serve(RoomyOptions());
  Enqueue("g", Spec(kForever));
  const v1::Session mine = Open("mine");
  const v1::Session yours = Open("yours");
  Preempt1(PreemptFor(mine, "g"));
  const v1::OperationResult refused = Preempt1(PreemptFor(yours, "g"));
  EXPECT_EQ(refused.code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.message(), HasSubstr("mine"));
  EXPECT_EQ(CodeOf(&v1::ControlService::Stub::Continue, yours, "g"), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(CodeOf(&v1::ControlService::Stub::Abort, yours, "g"), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Get("g").state(), State::PAUSED);
  EXPECT_EQ(Continue({"g"}).results(0).code(), StatusCode::OK);
  EXPECT_TRUE(TryClose(mine).ok());
  EXPECT_NE(Get("g").state(), State::PAUSED);
}

TEST_F(HoldingTest, ArgumentsAreChecked) {
  Serve(RoomyOptions());
  v1::PreemptRequest request;
  request.add_generation_ids("g");
  const auto expect = [&](const std::string& name) {
    v1::OperationResults results;
    const grpc::Status status = TryPreempt(request, &results);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << name;
    EXPECT_THAT(status.error_message(), HasSubstr(name));
  };
  request.mutable_lease()->set_seconds(-1);
  expect("lease");
  request.clear_lease();
  request.set_epoch(3);
  expect("epoch");
  request.set_session_id("s");
  request.set_epoch(0);
  expect("epoch");
  request.clear_session_id();
  request.set_on_lease_expiry(static_cast<v1::OnLeaseExpiry::Action>(9));
  expect("on_lease_expiry");
  request.clear_on_lease_expiry();
  request.mutable_selector()->set_tenant("t");
  expect("selector");
  request.clear_generation_ids();
  request.mutable_selector()->clear_tenant();
  expect("selector");
  v1::OpenSessionRequest open;
  open.mutable_ttl()->set_nanos(1);
  grpc::ClientContext context;
  v1::Session session;
  const grpc::Status status = control().OpenSession(&context, open, &session);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("ttl"));
}

}  // namespace
}  // namespace fermata
