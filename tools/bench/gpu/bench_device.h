// What programs that measure single kernels share. They end with a message on any error of the device.

#ifndef FERMATA_TOOLS_BENCH_GPU_BENCH_DEVICE_H_
#define FERMATA_TOOLS_BENCH_GPU_BENCH_DEVICE_H_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace fermata::kernels::cuda {

inline void Must(int error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(static_cast<cudaError_t>(error)));
  std::exit(1);
}

// Zeros; never freed.
template <typename T>
T* Allocate(int64_t count) {
  void* memory = nullptr;
  Must(cudaMalloc(&memory, static_cast<size_t>(count) * sizeof(T)), "memory");
  Must(cudaMemset(memory, 0, static_cast<size_t>(count) * sizeof(T)), "memory");
  return static_cast<T*>(memory);
}

// A stream, and two of its events.
class TimedStream {
 public:
  TimedStream() {
    Must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
    Must(cudaEventCreate(&begin_), "event");
    Must(cudaEventCreate(&end_), "event");
  }

  cudaStream_t stream() const { return stream_; }

  // Milliseconds of what `work` asks of the stream, by the device's own clock, in order: of `rounds` rounds after one
  // that does not count.
  template <typename Work>
  std::vector<float> Measure(int rounds, const Work& work) const {
    std::vector<float> milliseconds;
    for (int round = -1; round < rounds; ++round) {
      Must(cudaEventRecord(begin_, stream_), "event");
      work();
      Must(cudaEventRecord(end_, stream_), "event");
      Must(cudaEventSynchronize(end_), "work");
      float elapsed = 0;
      Must(cudaEventElapsedTime(&elapsed, begin_, end_), "time");
      if (round >= 0) milliseconds.push_back(elapsed);
    }
    std::sort(milliseconds.begin(), milliseconds.end());
    return milliseconds;
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_TOOLS_BENCH_GPU_BENCH_DEVICE_H_
