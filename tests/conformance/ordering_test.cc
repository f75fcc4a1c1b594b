// Goal: what is more urgent runs sooner; nobody is displaced without need; nothing that was accepted is lost.
// Method: ordering scenarios of other engines' suites (V and G numbers), over real gRPC. A holder of the only slot
// keeps the others waiting until all have arrived; the order is read from the step of each one's first token.

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/conformance/conformance_test_base.h"

namespace fermata {
namespace {

using State = v1::Generation;
using testing::ElementsAre;
using testing::HasSubstr;

class OrderingTest : public ConformanceTestBase {
 protected:
  static EngineOptions OneSlot(Displacement displacement = Displacement::kRunning) {
    EngineOptions options = RoomyOptions();
    options.max_running = 1;
    options.displacement = displacement;
    return options;
  }

  // Enqueues ids "0", "1", ... in the order of `arrivals`, with these priorities by id, behind a holder of all slots
  // that is let go when all have arrived. Returns the order in which they started.
  std::vector<std::string> Order(const std::vector<int32_t>& priorities, const std::vector<int>& arrivals) {
    Enqueue("holder", Spec(kForever, /*priority=*/-100));
    AwaitState("holder", State::RUNNING);
    std::vector<std::string> ids;
    for (const int id : arrivals) {
      ids.push_back(std::to_string(id));
      Enqueue(ids.back(), Spec(3, priorities[id]));
    }
    Abort({"holder"});
    return StartOrder(ids);
  }
};

TEST_F(OrderingTest, V1_PriorityDecides) {
  Serve(OneSlot());
  EXPECT_THAT(Order({2, 0, 1}, {0, 1, 2}), ElementsAre("1", "2", "0"));
}

TEST_F(OrderingTest, V2_ArrivalDecidesAmongEquals) {
  Serve(OneSlot());
  EXPECT_THAT(Order({1, 1, 1}, {1, 2, 0}), ElementsAre("1", "2", "0"));
}

TEST_F(OrderingTest, V3_PriorityThenArrival) {
  Serve(OneSlot());
  EXPECT_THAT(Order({2, 1, 1, 0}, {0, 2, 1, 3}), ElementsAre("3", "2", "1", "0"));
}

TEST_F(OrderingTest, V4_AllEqualIsFirstComeFirstServed) {
  Serve(OneSlot());
  EXPECT_THAT(Order({1, 1, 1, 1}, {1, 3, 2, 0}), ElementsAre("1", "3", "2", "0"));
}

TEST_F(OrderingTest, V4_FcfsKeepsPrioritiesButOrdersByArrival) {
  EngineOptions options = OneSlot();
  options.policy = SchedulePolicy::kFcfs;
  Serve(options);
  EXPECT_THAT(Order({5, 1, 3, 0}, {0, 1, 2, 3}), ElementsAre("0", "1", "2", "3"));
  EXPECT_EQ(Get("2").priority(), 3);
}

TEST_F(OrderingTest, V6_EqualPriorityNeverDisplaces) {
  Serve(OneSlot());
  Enqueue("first", Spec(50, 2));
  AwaitState("first", State::RUNNING);
  Enqueue("second", Spec(3, 2));
  Enqueue("third", Spec(3, 2));
  EXPECT_THAT(StartOrder({"first", "second", "third"}), ElementsAre("first", "second", "third"));
  EXPECT_EQ(GetEngine().totals().preemption_count(), 0);
}

TEST_F(OrderingTest, V7_WaitingOnesAreInOrder) {
  Serve(OneSlot());
  EXPECT_THAT(Order({3, 1, 2, 0}, {0, 1, 2, 3}), ElementsAre("3", "1", "2", "0"));
}

TEST_F(OrderingTest, V8_TwoSlotsGoToTheTwoMostUrgent) {
  EngineOptions options = RoomyOptions();
  options.max_running = 2;
  Serve(options);
  const std::vector<int32_t> priorities = {3, 1, 2, 0};
  std::vector<std::string> ids;
  for (int i = 0; i < 4; ++i) {
    ids.push_back(std::to_string(i));
    Enqueue(ids.back(), Spec(kForever, priorities[i]), /*hold=*/true);
  }
  Continue(ids);  // all arrive at one boundary
  AwaitState("3", State::RUNNING);
  AwaitState("1", State::RUNNING);
  EXPECT_EQ(Get("2").state(), State::QUEUED);
  EXPECT_EQ(Get("0").state(), State::QUEUED);
}

TEST_F(OrderingTest, V9_EightDrainInAscendingOrder) {
  Serve(OneSlot());
  EXPECT_THAT(Order({5, 1, 8, 3, 2, 7, 4, 6}, {0, 1, 2, 3, 4, 5, 6, 7}),
              ElementsAre("1", "4", "3", "6", "0", "7", "5", "2"));
}

TEST_F(OrderingTest, V10_NobodyIsDisplacedWhileThereIsRoom) {
  EngineOptions options = RoomyOptions();
  options.max_running = 3;
  Serve(options);
  Enqueue("a", Spec(kForever, 5, /*prompt_tokens=*/30));
  Enqueue("b", Spec(kForever, 5, /*prompt_tokens=*/30));
  Enqueue("c", Spec(kForever, 0, /*prompt_tokens=*/30));
  for (const char* id : {"a", "b", "c"}) AwaitState(id, State::RUNNING);
  EXPECT_EQ(GetEngine().totals().preemption_count(), 0);
}

// Displacement, and that it costs nothing but time: the urgent one starts in the next step.
TEST_F(OrderingTest, AnUrgentNewcomerTakesTheOnlySlotAndGivesItBack) {
  Serve(OneSlot());
  StreamReader batch(data(), Request("batch", Spec(300, 10)));
  batch.AwaitTokens(20);
  StreamReader urgent(data(), Request("urgent", Spec(5, 0)));
  const int64_t accepted_step = urgent.AwaitAccepted().step();
  const v1::Finish finish = urgent.AwaitFinish();
  EXPECT_EQ(finish.finish_reason(), State::LENGTH);
  EXPECT_EQ(finish.step(), accepted_step + 5) << "one step a token, from the next one on";
  const v1::Finish batch_finish = batch.AwaitFinish();
  EXPECT_EQ(batch_finish.usage().preemption_count(), 1);
  EXPECT_EQ(batch_finish.usage().prefilled_token_count(), batch_finish.usage().prompt_token_count());
  EXPECT_EQ(batch_finish.usage().recomputed_token_count(), 0);
  StreamReader alone(data(), Request("alone", Spec(300, 10)));
  alone.AwaitFinish();
  EXPECT_EQ(batch.tokens(), alone.tokens());
}

// G1 compares priorities with a threshold; here displacement=never keeps the holder.
TEST_F(OrderingTest, G1_WithoutDisplacementTheHolderEndsFirst) {
  Serve(OneSlot(Displacement::kNever));
  Enqueue("holder", Spec(300, 10));
  AwaitState("holder", State::RUNNING);
  Enqueue("a", Spec(3, 2));
  Enqueue("b", Spec(3, 2));
  Enqueue("c", Spec(3, 1));
  EXPECT_THAT(StartOrder({"holder", "a", "b", "c"}), ElementsAre("holder", "c", "a", "b"));
  EXPECT_EQ(GetEngine().totals().preemption_count(), 0);
}

// G3, answered differently: a full queue refuses newcomers whatever their priority, and keeps what it has accepted.
TEST_F(OrderingTest, G3_AFullQueueRefusesAndNamesItsLimit) {
  EngineOptions options = OneSlot();
  options.max_queued = 3;
  Serve(options);
  Enqueue("holder", Spec(kForever, 1));
  AwaitState("holder", State::RUNNING);
  for (int i = 0; i < 3; ++i) Enqueue(std::to_string(i), Spec(3, 4 + i));
  const grpc::Status status = TryEnqueue("late", Spec(3, 9));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("--max_queued=3"));
  StreamReader refused(data(), Request("late", Spec(3, 9)));
  EXPECT_EQ(refused.AwaitEnd().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  // Continue is never refused for the queue's bound.
  Preempt({"0"});
  Enqueue("another", Spec(3, 4));
  EXPECT_EQ(Continue({"0"}).results(0).code(), 0);
  Abort({"holder"});
  EXPECT_THAT(StartOrder({"0", "1", "2", "another"}), ElementsAre("0", "another", "1", "2"));
}

TEST_F(OrderingTest, AThousandAtOnceAllFinishOnce) {
  EngineOptions options = RoomyOptions();
  options.max_running = 64;
  Serve(options);
  std::vector<std::unique_ptr<StreamReader>> readers;
  constexpr int kCount = 1000;
  for (int i = 0; i < kCount; ++i) Enqueue("g" + std::to_string(i), Spec(4, i % 3));
  for (int i = 0; i < kCount; i += 50) {
    readers.push_back(std::make_unique<StreamReader>(data(), AttachAt("g" + std::to_string(i), 0)));
  }
  for (int i = 0; i < kCount; ++i) AwaitFinished("g" + std::to_string(i), State::LENGTH);
  for (const auto& reader : readers) EXPECT_EQ(reader->AwaitFinish().usage().output_token_count(), 4);
  EXPECT_EQ(GetEngine().totals().finished_count(), kCount);
}

TEST_F(OrderingTest, AContinuedOneKeepsItsOriginalPlace) {
  Serve(OneSlot());
  Enqueue("holder", Spec(kForever, -1));
  AwaitState("holder", State::RUNNING);
  Enqueue("early", Spec(3));
  Enqueue("late", Spec(3));
  Preempt({"early"});
  Continue({"early"});
  Abort({"holder"});
  EXPECT_THAT(StartOrder({"early", "late"}), ElementsAre("early", "late"));
}

// A class at a cap of its own waits; others do not wait with it.
TEST_F(OrderingTest, AClassAtItsCapWaitsAloneAndItsQueueHasABoundOfItsOwn) {
  EngineOptions options = RoomyOptions();
  options.classes = {{.name = "batch", .max_running = 1, .max_queued = 2}};
  Serve(options);
  v1::GenerationSpec batch = Spec(kForever);
  batch.set_traffic_class("batch");
  Enqueue("b1", batch);
  AwaitState("b1", State::RUNNING);
  Enqueue("b2", batch);
  Enqueue("b3", batch);
  const grpc::Status refused = TryEnqueue("b4", batch);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(refused.error_message().find("--class=batch,max_queued=2"), std::string::npos);
  Enqueue("other", Spec(5, /*priority=*/9));
  AwaitFinished("other", State::LENGTH);
  EXPECT_EQ(Get("b2").state(), State::QUEUED);
  Abort({"b1"});
  AwaitState("b2", State::RUNNING);
  EXPECT_EQ(Get("b3").state(), State::QUEUED);
}

TEST_F(OrderingTest, AReservedSlotIsThereForItsClass) {
  EngineOptions options = RoomyOptions();
  options.max_running = 2;
  options.displacement = Displacement::kNever;
  options.classes = {{.name = "interactive", .reserved = 1}};
  Serve(options);
  Enqueue("a", Spec(kForever));
  Enqueue("b", Spec(kForever));
  AwaitState("a", State::RUNNING);
  v1::GenerationSpec interactive = Spec(3, /*priority=*/5);
  interactive.set_traffic_class("interactive");
  Enqueue("quick", interactive);
  AwaitFinished("quick", State::LENGTH);
  EXPECT_EQ(Get("b").state(), State::QUEUED);
}

TEST_F(OrderingTest, WhoWaitsLongIsAdmittedBeforeTheMoreUrgent) {
  EngineOptions options = RoomyOptions();
  options.max_running = 1;
  options.aging = absl::Milliseconds(20);
  options.aging_levels = 5;
  Serve(options);
  Enqueue("running", Spec(kForever, /*priority=*/-9));
  AwaitState("running", State::RUNNING);
  Enqueue("old", Spec(3, /*priority=*/3));
  std::this_thread::sleep_for(std::chrono::milliseconds(150));
  EXPECT_EQ(Get("old").state(), State::QUEUED);
  EXPECT_EQ(Get("old").priority(), 3) << "it is shown as it was set";
  Enqueue("new", Spec(3, /*priority=*/1));
  Abort({"running"});
  EXPECT_EQ(StartOrder({"new", "old"}), (std::vector<std::string>{"old", "new"}));
}

}  // namespace
}  // namespace fermata
