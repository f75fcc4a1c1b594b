// Goal: the screen of `top` shows what a watch's messages come to.
// Method: messages in, lines of the screen out.

#include "tools/ctl/top_model.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fermata::ctl {
namespace {

using State = v1::Generation;
using testing::HasSubstr;
using testing::Not;

v1::Event Change(const std::string& id, State::State from, State::State to) {
  v1::Event event;
  event.set_generation_id(id);
  event.set_tenant("red");
  event.mutable_state_change()->set_from(from);
  event.mutable_state_change()->set_to(to);
  return event;
}

v1::Event Tokens(const std::string& id, int64_t count) {
  v1::Event event;
  event.set_generation_id(id);
  event.mutable_progress()->set_output_token_count(count);
  event.mutable_progress()->mutable_kv_blocks()->set_device_count(3);
  return event;
}

template <typename... Events>
v1::WatchResponse Batch(Events... events) {
  v1::WatchResponse message;
  message.mutable_batch()->mutable_step_duration()->set_nanos(1);
  message.mutable_batch()->set_step(7);
  (void)std::initializer_list<int>{(*message.mutable_batch()->add_events() = events, 0)...};
  return message;
}

TEST(TopModelTest, CountsRatesAndStates) {
  TopModel model;
  model.Take(Batch(Change("a", State::STATE_UNSPECIFIED, State::QUEUED), Change("a", State::QUEUED, State::RUNNING),
                   Change("b", State::STATE_UNSPECIFIED, State::QUEUED)));
  model.Take(Batch(Tokens("a", 1)));
  model.Take(Batch(Tokens("a", 1)));
  const std::string screen = model.Screen(absl::Seconds(2), 10);
  EXPECT_THAT(screen, HasSubstr("1.5 steps/s   1.0 tokens/s   KV blocks: 3 device"));
  EXPECT_THAT(screen, HasSubstr("1 running   1 queued   0 preempted   0 paused"));
  EXPECT_LT(screen.find("\na "), screen.find("\nb ")) << "the busiest first";
  EXPECT_THAT(model.Screen(absl::Seconds(1), 10), HasSubstr("0.0 tokens/s")) << "since the last one";
}

TEST(TopModelTest, SaysWhoHoldsAPause) {
  TopModel model;
  model.Take(Batch(Change("a", State::STATE_UNSPECIFIED, State::PAUSED)));
  EXPECT_EQ(model.undescribed().count("a"), 1u);
  v1::Generation described;
  described.set_generation_id("a");
  described.set_state(State::PAUSED);
  described.set_traffic_class("batch");
  described.mutable_pause()->set_session_id("fair");
  described.mutable_pause()->set_reason("over its share");
  model.Describe(described);
  EXPECT_TRUE(model.undescribed().empty());
  EXPECT_THAT(model.Screen(absl::Seconds(1), 10), HasSubstr("fair: over its share"));
}

TEST(TopModelTest, ASnapshotIsThereAndFinishedOnesAreNot) {
  TopModel model;
  v1::WatchResponse snapshot;
  v1::Generation* generation = snapshot.mutable_snapshot()->add_generations();
  generation->set_generation_id("old");
  generation->set_state(State::RUNNING);
  generation->mutable_usage()->set_output_token_count(41);
  model.Take(snapshot);
  model.Take(Batch(Tokens("old", 1)));
  EXPECT_THAT(model.Screen(absl::Seconds(1), 10), HasSubstr(" 42 "));
  model.Take(Batch(Change("old", State::RUNNING, State::FINISHED)));
  EXPECT_THAT(model.Screen(absl::Seconds(1), 10), Not(HasSubstr("old")));
}

TEST(TopModelTest, AnOldCopyNeitherBringsBackTheDeadNorHidesAPause) {
  TopModel model;
  v1::Generation copy;
  copy.set_generation_id("late");
  copy.set_state(State::RUNNING);
  model.Take(Batch(Change("late", State::STATE_UNSPECIFIED, State::RUNNING)));
  model.Take(Batch(Change("late", State::RUNNING, State::PAUSED)));
  model.Describe(copy);
  EXPECT_EQ(model.undescribed().count("late"), 1u) << "still to be asked for";
  EXPECT_THAT(model.Screen(absl::Seconds(1), 10), HasSubstr("1 paused"));
  model.Take(Batch(Change("late", State::PAUSED, State::FINISHED)));
  model.Describe(copy);
  EXPECT_THAT(model.Screen(absl::Seconds(1), 10), Not(HasSubstr("late")));
}

TEST(TopModelTest, KvBlocksAreShownByTier) {
  TopModel model;
  v1::Event event = Tokens("a", 1);
  event.mutable_progress()->mutable_kv_blocks()->set_host_count(21);
  event.mutable_progress()->mutable_kv_blocks()->set_disk_count(34);
  model.Take(Batch(Change("a", State::STATE_UNSPECIFIED, State::RUNNING), event));
  EXPECT_THAT(model.Screen(absl::Seconds(1), 10), testing::ContainsRegex(" 3 +21 +34 "));
}

TEST(TopModelTest, ShowsAtMostSoManyRows) {
  TopModel model;
  for (int i = 0; i < 9; ++i) {
    model.Take(Batch(Change("g" + std::to_string(i), State::STATE_UNSPECIFIED, State::QUEUED)));
  }
  const std::string screen = model.Screen(absl::Seconds(1), 4);
  EXPECT_EQ(std::count(screen.begin(), screen.end(), '\n'), 3 + 1 + 4);
}

}  // namespace
}  // namespace fermata::ctl
