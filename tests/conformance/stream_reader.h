// A client that reads one stream on a thread of its own and remembers everything in order.

#ifndef FERMATA_TESTS_CONFORMANCE_STREAM_READER_H_
#define FERMATA_TESTS_CONFORMANCE_STREAM_READER_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "grpcpp/client_context.h"
#include "proto/fermata/v1/inference_service.grpc.pb.h"

namespace fermata {

// All methods may be called while the stream goes on. Waiting methods give up, and fail the test, after a minute.
class StreamReader {
 public:
  StreamReader(v1::InferenceService::Stub& stub, const v1::GenerateRequest& request);
  StreamReader(v1::InferenceService::Stub& stub, const v1::AttachRequest& request);

  // Cancels a stream that has not ended.
  ~StreamReader();

  void Cancel() { context_.TryCancel(); }

  // Wait for the first message, for so many output tokens, for a notice of this state, for the end.
  v1::Accepted AwaitAccepted();
  void AwaitTokens(size_t count);
  void AwaitNotice(v1::Generation::State state);
  grpc::Status AwaitEnd();

  // The finish. Waits for the end, whose status must be OK.
  v1::Finish AwaitFinish();

  // What has come so far. Fails the test where offsets are not consecutive from the first one.
  std::vector<int32_t> tokens();
  std::string text();
  std::vector<v1::GenerateResponse> messages();

 private:
  void Read();

  // Waits until `ready` is true or the stream has ended. Needs mutex_.
  template <typename Ready>
  void Await(std::unique_lock<std::mutex>& lock, Ready ready, const char* what);

  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::GenerateResponse> messages_;  // guarded by mutex_, as are the next
  std::vector<int32_t> tokens_;
  bool ended_ = false;
  grpc::Status status_;

  std::thread thread_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_CONFORMANCE_STREAM_READER_H_
