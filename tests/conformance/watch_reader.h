// Reads a Watch on a thread of its own and keeps everything.

#ifndef FERMATA_TESTS_CONFORMANCE_WATCH_READER_H_
#define FERMATA_TESTS_CONFORMANCE_WATCH_READER_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "proto/fermata/v1/control_service.grpc.pb.h"

namespace fermata {

// All methods may be called while the watch goes on. Waiting ones give up, and fail the test, after a minute.
class WatchReader {
 public:
  WatchReader(v1::ControlService::Stub& stub, const v1::WatchRequest& request);

  // Cancels a watch that has not ended.
  ~WatchReader();

  // Wait until a message of which this is true has come, until a batch or bookmark of this revision or a later one has,
  // or until the end.
  void Await(const std::function<bool(const v1::WatchResponse&)>& wanted);
  void AwaitSnapshot();
  void AwaitRevision(int64_t revision);
  grpc::Status AwaitEnd();

  std::vector<v1::WatchResponse> messages();

  // The generations of the snapshot, in order.
  std::vector<v1::Generation> Snapshot();

  // What the batches so far add up to, by generation.
  std::map<std::string, v1::Event::Progress> Charges();

 private:
  void Read();

  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchResponse>> reader_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::WatchResponse> messages_;  // guarded by mutex_, as are the next
  bool ended_ = false;
  grpc::Status status_;

  std::thread thread_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_CONFORMANCE_WATCH_READER_H_
