// How long a step takes on the device, by its own events: to measure with.

#ifndef FERMATA_KERNELS_CUDA_STEP_WATCH_H_
#define FERMATA_KERNELS_CUDA_STEP_WATCH_H_

// As the CUDA runtime declares them, so that plain C++ need not include its headers.
struct CUstream_st;
struct CUevent_st;

namespace fermata::kernels::cuda {

// One thread at a time; one stream.
class StepWatch {
 public:
  explicit StepWatch(CUstream_st* stream);
  ~StepWatch();
  StepWatch(const StepWatch&) = delete;
  StepWatch& operator=(const StepWatch&) = delete;

  // The step's first and last work is asked for next, or has been. The last End() after a Begin() counts.
  void Begin();
  void End();

  // Between the two; below 0: unknown. REQUIRES: the stream has done both.
  double Seconds() const;

 private:
  CUstream_st* stream_;
  CUevent_st* begin_ = nullptr;
  CUevent_st* end_ = nullptr;
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_STEP_WATCH_H_
