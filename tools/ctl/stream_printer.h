// Shows the stream of one generation as it comes.

#ifndef FERMATA_TOOLS_CTL_STREAM_PRINTER_H_
#define FERMATA_TOOLS_CTL_STREAM_PRINTER_H_

#include "absl/status/status.h"
#include "proto/fermata/v1/inference_service.pb.h"
#include "tools/ctl/output.h"

namespace fermata::ctl {

// For people: the text to the results, token by token; that it is paused or goes on, and at the end its usage, to the
// notices. As JSON: each message as it came.
class StreamPrinter {
 public:
  // `output` must outlive it.
  explicit StreamPrinter(Output& output) : output_(output) {}

  void Print(const v1::GenerateResponse& response);

  // OK if the generation has ended by itself (STOP, LENGTH); otherwise what ended it: ABORTED, DEADLINE_EXCEEDED or
  // INTERNAL, with the server's words. UNKNOWN if the stream has ended without a finish.
  absl::Status outcome() const;

 private:
  void PrintNotice(const v1::Notice& notice);
  void PrintFinish(const v1::Finish& finish);

  Output& output_;
  bool in_line_ = false;  // text was written and the line is not ended
  v1::Generation::State state_ = v1::Generation::STATE_UNSPECIFIED;
  bool finished_ = false;
  v1::Finish finish_;
};

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_STREAM_PRINTER_H_
