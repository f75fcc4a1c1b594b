// Goal: the table of legal moves is exactly the one written above the enum, and every value has the API's name.
// Method: all pairs against a list written down again here.

#include "engine/core/generation_state.h"

#include <set>
#include <utility>

#include "gtest/gtest.h"

namespace fermata {
namespace {

using State = GenerationState;

constexpr State kAll[] = {State::kNone,      State::kQueued, State::kRunning,
                          State::kPreempted, State::kPaused, State::kFinished};

TEST(GenerationStateTest, OnlyTheMovesOfTheTableAreLegal) {
  const std::set<std::pair<State, State>> legal = {
      {State::kNone, State::kQueued},        {State::kNone, State::kPaused},       {State::kQueued, State::kRunning},
      {State::kRunning, State::kPreempted},  {State::kPreempted, State::kRunning}, {State::kQueued, State::kPaused},
      {State::kRunning, State::kPaused},     {State::kPreempted, State::kPaused},  {State::kPaused, State::kQueued},
      {State::kPaused, State::kPreempted},   {State::kQueued, State::kFinished},   {State::kRunning, State::kFinished},
      {State::kPreempted, State::kFinished}, {State::kPaused, State::kFinished},
  };
  for (const State from : kAll) {
    for (const State to : kAll) {
      EXPECT_EQ(IsLegalTransition(from, to), legal.count({from, to}) == 1) << Name(from) << " -> " << Name(to);
    }
  }
}

TEST(GenerationStateTest, EverythingButNoneAndFinishedLives) {
  for (const State state : kAll) EXPECT_EQ(IsLive(state), state != State::kNone && state != State::kFinished);
}

TEST(GenerationStateTest, NamesAreThoseOfTheApi) {
  EXPECT_EQ(Name(State::kQueued), "QUEUED");
  EXPECT_EQ(Name(State::kRunning), "RUNNING");
  EXPECT_EQ(Name(State::kPreempted), "PREEMPTED");
  EXPECT_EQ(Name(State::kPaused), "PAUSED");
  EXPECT_EQ(Name(State::kFinished), "FINISHED");
  EXPECT_EQ(Name(FinishReason::kStop), "STOP");
  EXPECT_EQ(Name(FinishReason::kLength), "LENGTH");
  EXPECT_EQ(Name(FinishReason::kAborted), "ABORTED");
  EXPECT_EQ(Name(FinishReason::kDeadline), "DEADLINE");
  EXPECT_EQ(Name(FinishReason::kError), "ERROR");
}

}  // namespace
}  // namespace fermata
