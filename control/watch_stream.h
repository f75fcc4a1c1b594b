// One Watch call.

#ifndef FERMATA_CONTROL_WATCH_STREAM_H_
#define FERMATA_CONTROL_WATCH_STREAM_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "control/event_conversion.h"
#include "engine/core/commands.h"
#include "engine/runtime/engine_runtime.h"
#include "engine/runtime/event_log.h"
#include "grpcpp/alarm.h"
#include "grpcpp/grpcpp.h"
#include "proto/fermata/v1/control_service.grpc.pb.h"

namespace fermata {

// Writes the snapshot, if one is wanted, then a message for each batch of the log that has something for the filter (or
// for several, with a progress_interval), as fast as the watcher takes them, one write in flight at a time. Says from
// time to time how far it is. The engine never waits for it: one that is further behind than the log reaches back is
// ended. Keeps itself alive until gRPC is done.
//
// gRPC calls the reactor's methods, and the publisher wakes it, each on threads of their own: one mutex guards all.
class WatchStream : public grpc::ServerWriteReactor<v1::WatchResponse>,
                    public std::enable_shared_from_this<WatchStream> {
 public:
  static constexpr int kMaxWatchers = 64;
  static constexpr int kSnapshotPage = 500;  // generations in a message
  static constexpr absl::Duration kBookmarkInterval = absl::Seconds(5);

  // Counts itself in `watcher_count` while it lives. Borrows both; they must outlive every stream.
  static WatchStream* Create(EngineRuntime& runtime, std::atomic<int>& watcher_count, const v1::WatchRequest& request);

  ~WatchStream() override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  WatchStream(EngineRuntime& runtime, std::atomic<int>& watcher_count, const v1::WatchRequest& request,
              absl::Duration progress_interval);

  void Start(int64_t from_revision);

  // The snapshot, on the publisher's thread.
  void OnReply(const Reply* reply);

  // There may be something new in the log; what is held back is due; a bookmark is due.
  void OnWake();
  void OnProgressDue();
  void OnBookmarkDue();

  // The following need mutex_.
  void Enter(int64_t revision);
  void WriteNext();
  void WriteSnapshotPage();
  void WriteMerged();
  void ArmProgress();
  void ArmBookmark();
  void FinishOnce(const absl::Status& status);
  absl::Status LostStatus() const;

  EngineRuntime& runtime_;
  EventLog& log_;
  std::atomic<int>& watcher_count_;
  const absl::Duration progress_interval_;
  std::shared_ptr<WatchStream> self_;  // from Create() to OnDone()

  std::mutex mutex_;
  // All guarded by mutex_.
  v1::WatchResponse response_;            // the write in flight
  std::vector<GenerationInfo> snapshot_;  // what is left of it, last first
  int64_t snapshot_revision_ = 0;         // while it is being written; 0: it is not
  EventLog::Cursor cursor_;
  int64_t sent_revision_ = 0;              // of the last message
  BatchMerger merger_;                     // what is held back
  std::unique_ptr<grpc::Alarm> progress_;  // not null: armed
  std::unique_ptr<grpc::Alarm> bookmark_;  // not null: armed
  bool entered_ = false;
  bool writing_ = false;
  bool cancelled_ = false;
  bool finished_ = false;
};

}  // namespace fermata

#endif  // FERMATA_CONTROL_WATCH_STREAM_H_
