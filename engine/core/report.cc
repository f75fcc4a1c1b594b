#include "engine/core/report.h"

namespace fermata {

absl::string_view Name(Cause cause) {
  switch (cause) {
    case Cause::kEnqueue:
      return "enqueue";
    case Cause::kScheduler:
      return "scheduler";
    case Cause::kPreempt:
      return "preempt";
    case Cause::kContinue:
      return "continue";
    case Cause::kAbort:
      return "abort";
    case Cause::kDisconnect:
      return "disconnect";
    case Cause::kAttach:
      return "attach";
    case Cause::kLease:
      return "lease";
    case Cause::kSession:
      return "session";
    case Cause::kStop:
      return "stop";
    case Cause::kLength:
      return "length";
    case Cause::kTimeout:
      return "timeout";
    case Cause::kError:
      return "error";
    case Cause::kDrain:
      return "drain";
    case Cause::kRestore:
      return "restore";
  }
  return "unknown";
}

}  // namespace fermata
