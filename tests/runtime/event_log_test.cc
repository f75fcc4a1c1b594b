// Goal: watchers get every batch once, in order, or are told that they are too far behind.
// Method: cursors over a log that keeps few events, by hand.

#include "engine/runtime/event_log.h"

#include <memory>
#include <utility>
#include <variant>

#include "gtest/gtest.h"

namespace fermata {
namespace {

WatchedBatch Batch(int64_t revision, int event_count = 1) {
  WatchedBatch batch;
  batch.revision = revision;
  batch.events.resize(event_count);
  return batch;
}

// The revision of the next batch; 0: none yet; -1: lost; -2: closed.
int64_t Next(
    EventLog& log, EventLog::Cursor& cursor, std::function<void()> wake = [] {}) {
  const EventLog::Item item = log.Read(cursor, std::move(wake));
  if (std::holds_alternative<EventLog::Lost>(item)) return -1;
  if (std::holds_alternative<EventLog::Closed>(item)) return -2;
  const auto* batch = std::get_if<std::shared_ptr<const WatchedBatch>>(&item);
  return batch == nullptr ? 0 : (*batch)->revision;
}

TEST(EventLogTest, WatchersReadAtTheirOwnPace) {
  EventLog log(100);
  EventLog::Cursor early = log.Enter(101);
  EXPECT_EQ(Next(log, early), 0);
  log.Append(Batch(101));
  log.Append(Batch(102));
  EventLog::Cursor late = log.Enter(102);
  EXPECT_EQ(Next(log, early), 101);
  EXPECT_EQ(Next(log, late), 102);
  EXPECT_EQ(Next(log, early), 102);
  EXPECT_EQ(Next(log, early), 0);
}

TEST(EventLogTest, WhoIsTooFarBehindIsTold) {
  EventLog log(0, /*max_events=*/10);
  EventLog::Cursor slow = log.Enter(1);
  log.Append(Batch(1, 4));
  EventLog::Cursor quick = log.Enter(1);
  EXPECT_EQ(Next(log, quick), 1);
  log.Append(Batch(2, 4));
  log.Append(Batch(3, 4));
  EXPECT_EQ(Next(log, slow), -1);
  EXPECT_EQ(Next(log, quick), 2);
  EXPECT_EQ(log.first_revision(), 2);
  EXPECT_EQ(log.last_revision(), 3);
  // One that is larger than the whole log is kept all the same.
  log.Append(Batch(4, 100));
  EXPECT_EQ(log.first_revision(), 4);
}

TEST(EventLogTest, ARevisionBeyondTheNextIsNotToBeHad) {
  EventLog log(7);
  EventLog::Cursor next = log.Enter(8);
  EventLog::Cursor beyond = log.Enter(9);
  EventLog::Cursor before = log.Enter(7);
  EXPECT_EQ(Next(log, next), 0);
  EXPECT_EQ(Next(log, beyond), -1);
  EXPECT_EQ(Next(log, before), -1);
}

TEST(EventLogTest, WakesOnceEachWhoWaits) {
  EventLog log(0);
  int woken = 0;
  EventLog::Cursor waiting = log.Enter(1);
  EventLog::Cursor gone = log.Enter(1);
  Next(log, waiting, [&] { ++woken; });
  Next(log, gone, [&] { woken += 100; });
  log.Leave(gone);
  log.Append(Batch(1));
  log.WakeWatchers();
  log.WakeWatchers();
  EXPECT_EQ(woken, 1);
}

TEST(EventLogTest, TheEndComesAfterTheLastBatch) {
  EventLog log(0);
  EventLog::Cursor cursor = log.Enter(1);
  log.Append(Batch(1));
  log.Close();
  EXPECT_EQ(Next(log, cursor), 1);
  EXPECT_EQ(Next(log, cursor), -2);
}

}  // namespace
}  // namespace fermata
