#include "control/request_checks.h"

#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/serving/generation_conversion.h"
#include "engine/serving/spec_conversion.h"
#include "engine/serving/status.h"

namespace fermata {
namespace {

constexpr size_t kMaxReasonBytes = 256;
constexpr int kDefaultPageSize = 100;
constexpr absl::Duration kMaxProgressInterval = absl::Minutes(1);

}  // namespace

absl::StatusOr<std::vector<GenerationId>> ParseIds(const google::protobuf::RepeatedPtrField<std::string>& ids,
                                                   int limit) {
  if (ids.empty() || ids.size() > limit) {
    return absl::InvalidArgumentError(
        absl::StrCat("generation_ids has ", ids.size(), " entries; allowed are 1 to ", limit));
  }
  std::vector<GenerationId> parsed;
  parsed.reserve(ids.size());
  for (const std::string& text : ids) {
    absl::StatusOr<GenerationId> id = GenerationId::Parse(text);
    if (!id.ok()) return id.status();
    parsed.push_back(*std::move(id));
  }
  return parsed;
}

absl::Status CheckReason(const std::string& reason) {
  if (reason.size() <= kMaxReasonBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("reason is ", reason.size(), " bytes long; allowed are at most ", kMaxReasonBytes));
}

absl::StatusOr<ListGenerationsCommand> ToListCommand(const v1::ListGenerationsRequest& request, int max_page_size) {
  ListGenerationsCommand command;
  if (request.page_size() < 0 || request.page_size() > max_page_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("page_size is ", request.page_size(), "; allowed are 0 to ", max_page_size));
  }
  command.page_size = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  command.tenant = request.tenant();
  command.traffic_class = request.traffic_class();
  for (const int state : request.states()) {
    const absl::StatusOr<GenerationState> parsed = ToGenerationState(state);
    if (!parsed.ok()) return parsed.status();
    // Once each: they are looked through for every generation.
    if (!absl::c_linear_search(command.states, *parsed)) command.states.push_back(*parsed);
  }
  if (!request.page_token().empty()) {
    int64_t after = 0;
    if (!absl::SimpleAtoi(request.page_token(), &after) || after < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("page_token \"", absl::CHexEscape(request.page_token()), "\" is none that this server gave"));
    }
    command.after = GenerationKey{after};
  }
  return command;
}

absl::StatusOr<absl::Duration> ToProgressInterval(const v1::WatchRequest& request) {
  const google::protobuf::Duration& interval = request.progress_interval();
  if (interval.seconds() == 0 && interval.nanos() == 0) return absl::ZeroDuration();
  const absl::StatusOr<absl::Duration> duration = ToPositiveDuration(interval, "progress_interval");
  if (!duration.ok() || *duration <= kMaxProgressInterval) return duration;
  return absl::InvalidArgumentError(absl::StrCat("progress_interval is ", absl::FormatDuration(*duration),
                                                 "; allowed is 0 to ", absl::FormatDuration(kMaxProgressInterval)));
}

}  // namespace fermata
