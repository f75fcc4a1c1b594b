// Goal: Watch loses nothing: from a snapshot or a revision on, every change at consecutive revisions, so that what a
// watcher adds up is what the usages say.
// Method: watchers over real gRPC beside clients that pause, displace and abort; sums are compared with usages.

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/conformance/conformance_test_base.h"
#include "tests/conformance/watch_reader.h"

namespace fermata {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;
using State = v1::Generation;

v1::WatchRequest From(int64_t revision) {
  v1::WatchRequest request;
  request.set_from_revision(revision);
  return request;
}

class WatchTest : public ConformanceTestBase {
 protected:
  v1::GenerationSpec SpecOf(const std::string& tenant, int32_t max_tokens, int32_t priority = 0) {
    v1::GenerationSpec spec = Spec(max_tokens, priority);
    spec.set_tenant(tenant);
    return spec;
  }

  // Unfiltered batches after `revision`: each follows the one before.
  static void ExpectConsecutive(const std::vector<v1::WatchResponse>& messages) {
    int64_t last = 0;
    for (const v1::WatchResponse& message : messages) {
      if (message.has_snapshot()) last = message.snapshot().revision();
      if (message.has_bookmark()) {
        EXPECT_EQ(message.bookmark().revision(), last);
      }
      if (!message.has_batch()) continue;
      if (last != 0) {
        EXPECT_EQ(message.batch().previous_revision(), last);
      }
      EXPECT_EQ(message.batch().revision(), message.batch().previous_revision() + 1);
      EXPECT_GT(message.batch().events_size(), 0);
      last = message.batch().revision();
    }
  }
};

TEST_F(WatchTest, WhatAWatcherAddsUpIsWhatTheUsagesSay) {
  EngineOptions options = RoomyOptions();
  options.max_running = 3;
  Serve(options);
  WatchReader watcher(control(), From(0));
  watcher.AwaitSnapshot();
  EXPECT_TRUE(watcher.Snapshot().empty());
  std::vector<std::string> ids;
  for (int i = 0; i < 12; ++i) {
    ids.push_back("g" + std::to_string(i));
    Enqueue(ids.back(), SpecOf(i % 2 == 0 ? "red" : "blue", 20 + i, /*priority=*/-i / 4));
    if (i % 3 == 0) Preempt({ids.back()});
  }
  Continue(ids);
  Abort({"g7"});
  for (const std::string& id : ids) AwaitState(id, State::FINISHED);
  watcher.AwaitRevision(GetEngine().revision());
  ExpectConsecutive(watcher.messages());
  const std::map<std::string, v1::Event::Progress> charges = watcher.Charges();
  for (const std::string& id : ids) {
    const v1::Usage usage = Get(id).usage();
    const auto it = charges.find(id);
    const v1::Event::Progress sum = it == charges.end() ? v1::Event::Progress() : it->second;
    EXPECT_EQ(sum.prefilled_token_count(), usage.prefilled_token_count()) << id;
    EXPECT_EQ(sum.output_token_count(), usage.output_token_count()) << id;
    EXPECT_EQ(sum.recomputed_token_count(), 0) << id;
  }
}

TEST_F(WatchTest, BatchesOfStepsSayHowLongTheyTookAndWhatIsHeld) {
  Serve(RoomyOptions());
  WatchReader watcher(control(), From(0));
  watcher.AwaitSnapshot();
  Enqueue("g", Spec(20));
  AwaitFinished("g", State::LENGTH);
  watcher.AwaitRevision(GetEngine().revision());
  int64_t step = 0;
  for (const v1::WatchResponse& message : watcher.messages()) {
    for (const v1::Event& event : message.batch().events()) {
      if (!event.has_progress()) continue;
      EXPECT_TRUE(message.batch().has_step_duration());
      EXPECT_GT(message.batch().step(), step) << "one progress in a step";
      step = message.batch().step();
      EXPECT_GT(event.progress().kv_blocks().device_count(), 0);
    }
  }
  EXPECT_GT(step, 0);
}

TEST_F(WatchTest, StateChangesSayWhoDidIt) {
  Serve(RoomyOptions());
  WatchReader watcher(control(), From(0));
  watcher.AwaitSnapshot();
  Enqueue("g", SpecOf("red", kForever));
  AwaitState("g", State::RUNNING);
  Preempt({"g"});
  SetPriority({"g"}, 7);
  Continue({"g"});
  AwaitState("g", State::RUNNING);
  Abort({"g"});
  watcher.AwaitRevision(GetEngine().revision());
  std::vector<std::string> causes;
  int priority_changes = 0;
  State::State state = State::STATE_UNSPECIFIED;
  for (const v1::WatchResponse& message : watcher.messages()) {
    for (const v1::Event& event : message.batch().events()) {
      EXPECT_EQ(event.generation_id(), "g");
      EXPECT_EQ(event.tenant(), "red");
      priority_changes += event.has_priority_change() && event.priority_change().priority() == 7;
      if (!event.has_state_change()) continue;
      EXPECT_EQ(event.state_change().from(), state) << "each begins where the last one ended";
      state = event.state_change().to();
      causes.push_back(event.state_change().cause());
    }
  }
  EXPECT_THAT(causes, testing::ElementsAre("enqueue", "scheduler", "preempt", "continue", "scheduler", "abort"));
  EXPECT_EQ(priority_changes, 1);
}

TEST_F(WatchTest, ASnapshotAndItsEventsAreOneStory) {
  Serve(RoomyOptions());
  Enqueue("running", Spec(kForever));
  Enqueue("held", Spec(5), /*hold=*/true);
  Enqueue("over", Spec(1));
  AwaitFinished("over", State::LENGTH);
  WatchReader watcher(control(), From(0));
  watcher.AwaitSnapshot();
  std::map<std::string, int64_t> tokens;
  for (const v1::Generation& generation : watcher.Snapshot()) {
    tokens[generation.generation_id()] = generation.usage().output_token_count();
  }
  EXPECT_EQ(tokens.size(), 2u) << "the finished one is not in it";
  const v1::Usage usage = Abort({"running"}).results(0).generation().usage();
  watcher.AwaitRevision(GetEngine().revision());
  EXPECT_EQ(tokens["running"] + watcher.Charges()["running"].output_token_count(), usage.output_token_count());
}

TEST_F(WatchTest, ALargeSnapshotComesInPagesOfOneRevision) {
  Serve(RoomyOptions());
  for (int i = 0; i < 1200; ++i) Enqueue("g" + std::to_string(i), Spec(1), /*hold=*/true);
  WatchReader watcher(control(), From(0));
  watcher.AwaitSnapshot();
  std::set<int64_t> revisions;
  for (const v1::WatchResponse& message : watcher.messages()) revisions.insert(message.snapshot().revision());
  EXPECT_EQ(revisions.size(), 1u);
  EXPECT_EQ(watcher.messages().size(), 3u);
  EXPECT_EQ(watcher.Snapshot().size(), 1200u);
}

TEST_F(WatchTest, AWatchGoesOnFromARevision) {
  Serve(RoomyOptions());
  const int64_t before = GetEngine().revision();
  Enqueue("g", Spec(10));
  AwaitFinished("g", State::LENGTH);
  const int64_t after = GetEngine().revision();
  WatchReader watcher(control(), From(before + 1));
  watcher.AwaitRevision(after);
  const std::vector<v1::WatchResponse> messages = watcher.messages();
  ExpectConsecutive(messages);
  EXPECT_EQ(messages.front().batch().revision(), before + 1);
  EXPECT_EQ(watcher.Charges()["g"].output_token_count(), 10);
}

TEST_F(WatchTest, ARevisionThatIsNotToBeHadIsOutOfRange) {
  Serve(RoomyOptions());
  Enqueue("g", Spec(1), /*hold=*/true);
  const grpc::Status status = WatchReader(control(), From(GetEngine().revision() + 2)).AwaitEnd();
  EXPECT_EQ(status.error_code(), StatusCode::OUT_OF_RANGE);
  EXPECT_THAT(status.error_message(), HasSubstr("snapshot"));
}

TEST_F(WatchTest, FiltersShowTheGap) {
  Serve(RoomyOptions());
  v1::WatchRequest request = From(0);
  request.set_tenant("red");
  WatchReader watcher(control(), request);
  watcher.AwaitSnapshot();
  Enqueue("blue", SpecOf("blue", 10));
  AwaitFinished("blue", State::LENGTH);
  Enqueue("red", SpecOf("red", 1), /*hold=*/true);
  const int64_t revision = Get("red").revision();
  watcher.AwaitRevision(revision);
  for (const v1::WatchResponse& message : watcher.messages()) {
    if (!message.has_batch()) continue;
    EXPECT_EQ(message.batch().revision(), revision);
    EXPECT_LT(message.batch().previous_revision(), revision - 1);
    EXPECT_EQ(message.batch().events(0).generation_id(), "red");
  }
}

TEST_F(WatchTest, ProgressThatIsHeldBackIsMergedAndNothingOfItIsLost) {
  Serve(RoomyOptions());
  v1::WatchRequest request = From(0);
  request.mutable_progress_interval()->set_seconds(60);
  WatchReader watcher(control(), request);
  watcher.AwaitSnapshot();
  Enqueue("a", SpecOf("red", 300));
  Enqueue("b", SpecOf("blue", 200));
  for (const char* id : {"a", "b"}) AwaitFinished(id, State::LENGTH);
  watcher.AwaitRevision(GetEngine().revision());
  std::map<std::string, v1::Event::Progress> charges = watcher.Charges();
  for (const char* id : {"a", "b"}) {
    const v1::Usage usage = Get(id).usage();
    EXPECT_EQ(charges[id].output_token_count(), usage.output_token_count()) << id;
    EXPECT_EQ(charges[id].prefilled_token_count(), usage.prefilled_token_count()) << id;
  }
  int64_t last = 0;
  int batches = 0;
  for (const v1::WatchResponse& message : watcher.messages()) {
    if (message.has_snapshot()) last = message.snapshot().revision();
    if (!message.has_batch()) continue;
    EXPECT_EQ(message.batch().previous_revision(), last);
    last = message.batch().revision();
    ++batches;
    bool changes = false;
    for (const v1::Event& event : message.batch().events()) changes = changes || event.has_state_change();
    EXPECT_TRUE(changes) << "progress alone waits for a minute";
  }
  EXPECT_LE(batches, 6) << "for each: it is there, it runs, it has finished";
}

TEST_F(WatchTest, ProgressIsHeldBackNoLongerThanAsked) {
  Serve(RoomyOptions());
  v1::WatchRequest request = From(0);
  request.mutable_progress_interval()->set_nanos(20'000'000);
  WatchReader watcher(control(), request);
  Enqueue("g", Spec(kForever));
  watcher.Await([](const v1::WatchResponse& message) {
    const v1::EventBatch& batch = message.batch();
    return batch.events_size() == 1 && batch.events(0).progress().output_token_count() > 1 &&
           batch.revision() - batch.previous_revision() == batch.events(0).progress().output_token_count() &&
           batch.has_step_duration();
  });
}

TEST_F(WatchTest, AProgressIntervalOutOfRangeIsRefused) {
  Serve(RoomyOptions());
  for (const int64_t seconds : {-1, 61}) {
    v1::WatchRequest request = From(0);
    request.mutable_progress_interval()->set_seconds(seconds);
    const grpc::Status status = WatchReader(control(), request).AwaitEnd();
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("progress_interval"));
  }
}

TEST_F(WatchTest, AQuietWatchGetsBookmarks) {
  Serve(RoomyOptions());
  v1::WatchRequest request = From(0);
  request.set_tenant("nobody");
  WatchReader watcher(control(), request);
  watcher.AwaitSnapshot();
  Enqueue("g", Spec(10));
  AwaitFinished("g", State::LENGTH);
  const int64_t revision = GetEngine().revision();
  watcher.Await([revision](const v1::WatchResponse& message) { return message.bookmark().revision() >= revision; });
}

TEST_F(WatchTest, TooManyWatchersAreRefused) {
  Serve(RoomyOptions());
  std::vector<std::unique_ptr<WatchReader>> watchers;
  for (int i = 0; i < 64; ++i) {
    watchers.push_back(std::make_unique<WatchReader>(control(), From(0)));
    watchers.back()->AwaitSnapshot();
  }
  const grpc::Status status = WatchReader(control(), From(0)).AwaitEnd();
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("64"));
  Enqueue("g", Spec(3));
  AwaitFinished("g", State::LENGTH);
}

TEST_F(WatchTest, TheServersEndEndsAWatch) {
  Serve(RoomyOptions());
  WatchReader watcher(control(), From(0));
  watcher.AwaitSnapshot();
  Enqueue("g", Spec(kForever));
  server().Stop();
  EXPECT_EQ(watcher.AwaitEnd().error_code(), StatusCode::UNAVAILABLE);
  bool finished = false;
  for (const v1::WatchResponse& message : watcher.messages()) {
    for (const v1::Event& event : message.batch().events()) {
      finished |= event.state_change().to() == State::FINISHED;
    }
  }
  EXPECT_TRUE(finished) << "nothing is left out at the end either";
}

}  // namespace
}  // namespace fermata
