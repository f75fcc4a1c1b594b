#include "tools/ctl/stream_printer.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "tools/ctl/format.h"

namespace fermata::ctl {

void StreamPrinter::Print(const v1::GenerateResponse& response) {
  if (response.has_finish()) {
    finished_ = true;
    finish_ = response.finish();
  }
  if (output_.json()) {
    output_.Json(response);
    return;
  }
  switch (response.response_case()) {
    case v1::GenerateResponse::kChunk:
      if (response.chunk().text().empty()) break;
      output_.Text(Printable(response.chunk().text()));
      in_line_ = response.chunk().text().back() != '\n';
      break;
    case v1::GenerateResponse::kNotice:
      PrintNotice(response.notice());
      break;
    case v1::GenerateResponse::kFinish:
      PrintFinish(response.finish());
      break;
    case v1::GenerateResponse::kAccepted:
      state_ = response.accepted().state();
      output_.Notice(absl::StrCat("[", response.accepted().generation_id(), ": ",
                                  response.accepted().prompt_token_count(), " prompt tokens]"));
      break;
    case v1::GenerateResponse::RESPONSE_NOT_SET:
      break;
  }
}

void StreamPrinter::PrintNotice(const v1::Notice& notice) {
  // The server repeats itself while a generation rests, so that no proxy cuts the stream.
  if (notice.state() == state_) return;
  state_ = notice.state();
  std::string line =
      absl::StrCat(in_line_ ? " [" : "[", v1::Generation::State_Name(notice.state()), " at step ", notice.step());
  if (!notice.reason().empty()) absl::StrAppend(&line, ": ", Printable(notice.reason()));
  output_.Notice(absl::StrCat(line, "]"));
}

void StreamPrinter::PrintFinish(const v1::Finish& finish) {
  if (in_line_) output_.Text("\n");
  output_.Notice(absl::StrCat("[", v1::Generation::FinishReason_Name(finish.finish_reason()), " at step ",
                              finish.step(), ": ", UsageText(finish.usage()), "]"));
}

absl::Status StreamPrinter::outcome() const {
  if (!finished_) return absl::UnknownError("the stream ended without a finish");
  std::string message = Printable(finish_.error_message());
  if (message.empty()) {
    message = absl::StrCat("the generation ended with ", v1::Generation::FinishReason_Name(finish_.finish_reason()));
  }
  switch (finish_.finish_reason()) {
    case v1::Generation::STOP:
    case v1::Generation::LENGTH:
      return absl::OkStatus();
    case v1::Generation::ABORTED:
      return absl::AbortedError(message);
    case v1::Generation::DEADLINE:
      return absl::DeadlineExceededError(message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace fermata::ctl
