#include "tools/ctl/watch_commands.h"

#include <unistd.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/fermata/v1/control_service.grpc.pb.h"
#include "tools/ctl/control_flags.h"
#include "tools/ctl/format.h"
#include "tools/ctl/interrupt.h"
#include "tools/ctl/top_model.h"

namespace fermata::ctl {
namespace {

using State = v1::Generation;

// What the event says, without whom it is about.
std::string What(const v1::Event& event) {
  switch (event.event_case()) {
    case v1::Event::kStateChange: {
      const v1::Event::StateChange& change = event.state_change();
      const std::string from = change.from() == State::STATE_UNSPECIFIED ? "" : State::State_Name(change.from()) + " ";
      return absl::StrCat(from, "-> ", State::State_Name(change.to()), " by ", change.cause());
    }
    case v1::Event::kProgress: {
      const v1::Event::Progress& progress = event.progress();
      std::string what = absl::StrCat("+", progress.output_token_count(), " tokens");
      if (progress.prefilled_token_count() > 0)
        absl::StrAppend(&what, ", prefilled ", progress.prefilled_token_count());
      if (progress.cached_token_count() > 0) absl::StrAppend(&what, ", cached ", progress.cached_token_count());
      if (progress.recomputed_token_count() > 0) {
        absl::StrAppend(&what, ", recomputed ", progress.recomputed_token_count());
      }
      return what;
    }
    case v1::Event::kKvMove:
      return absl::StrCat("KV of ", event.kv_move().block_count(), " blocks ",
                          v1::KvTier::Tier_Name(event.kv_move().from()), " -> ",
                          v1::KvTier::Tier_Name(event.kv_move().to()));
    case v1::Event::kPriorityChange:
      return absl::StrCat("priority ", event.priority_change().priority());
    case v1::Event::EVENT_NOT_SET:
      break;
  }
  return "something that this client does not know";
}

class WatchCommand : public Command {
 public:
  absl::string_view name() const override { return "watch"; }
  absl::string_view operands() const override { return ""; }
  absl::string_view summary() const override { return "Print what happens, as it happens"; }

  void AddFlags(FlagSet& flags) override {
    flags.AddInteger("from", "the first revision wanted; default: a snapshot first", &from_);
    flags.AddString("tenant", "of this tenant alone", request_.mutable_tenant());
    flags.AddString("class", "of this traffic class alone", request_.mutable_traffic_class());
    flags.AddDuration("progress_interval", "hold progress back for so long, and print its sum", &progress_interval_);
  }

  absl::Status Prepare(std::vector<std::string> operands) override {
    if (!operands.empty()) return absl::InvalidArgumentError("it takes no operands");
    request_.set_from_revision(from_.value_or(0));
    if (progress_interval_.has_value()) *request_.mutable_progress_interval() = ToProto(*progress_interval_);
    return absl::OkStatus();
  }

  absl::Status Run(Client& client, Output& output) override {
    grpc::ClientContext context;
    Interrupt interrupt([&] { context.TryCancel(); });
    const auto reader = client.control().Watch(&context, request_);
    v1::WatchResponse message;
    while (reader->Read(&message)) {
      if (output.json()) {
        output.Json(message);
      } else {
        Print(message, output);
      }
    }
    const absl::Status status = Client::ToStatus(reader->Finish());
    if (interrupt.happened()) return absl::OkStatus();
    if (status.code() != absl::StatusCode::kOutOfRange) return status;
    return absl::OutOfRangeError(absl::StrCat(status.message(), " (leave --from out)"));
  }

 private:
  static void Print(const v1::WatchResponse& message, Output& output) {
    const std::string now = absl::FormatTime("%H:%M:%E3S", absl::Now(), absl::LocalTimeZone());
    for (const v1::Generation& generation : message.snapshot().generations()) {
      output.Text(absl::StrCat(now, " ", message.snapshot().revision(), " ", Printable(generation.generation_id()), " ",
                               State::State_Name(generation.state()), "\n"));
    }
    for (const v1::Event& event : message.batch().events()) {
      output.Text(absl::StrCat(now, " ", message.batch().revision(), " step ", message.batch().step(), " ",
                               Printable(event.generation_id()), " ", Printable(What(event)), "\n"));
    }
  }

  std::optional<int64_t> from_;
  std::optional<absl::Duration> progress_interval_;
  v1::WatchRequest request_;
};

// Reads a Watch on a thread of its own while this one draws.
class TopCommand : public Command {
 public:
  absl::string_view name() const override { return "top"; }
  absl::string_view operands() const override { return ""; }
  absl::string_view summary() const override { return "A live screen of what runs, waits and rests"; }

  void AddFlags(FlagSet& flags) override {
    flags.AddSwitch("once", "draw one screen after a second, and end", &once_);
    flags.AddInteger("rows", "generations shown; default 30", &rows_);
  }

  absl::Status Prepare(std::vector<std::string> operands) override {
    return operands.empty() ? absl::OkStatus() : absl::InvalidArgumentError("it takes no operands");
  }

  absl::Status Run(Client& client, Output& output) override {
    grpc::ClientContext context;
    Interrupt interrupt([&] { context.TryCancel(); });
    const auto reader = client.control().Watch(&context, v1::WatchRequest());
    bool ended = false;
    std::thread thread([&] {
      v1::WatchResponse message;
      while (reader->Read(&message)) {
        const std::lock_guard<std::mutex> lock(mutex_);
        model_.Take(message);
      }
      const std::lock_guard<std::mutex> lock(mutex_);
      ended = true;
    });
    const bool redraws = !once_ && isatty(STDOUT_FILENO);
    absl::Time last = absl::Now();
    bool drawn = false;
    while (true) {
      if (interrupt.WaitFor(absl::Seconds(1))) break;
      DescribeNewOnes(client);
      const std::lock_guard<std::mutex> lock(mutex_);
      if (ended) break;
      const absl::Time now = absl::Now();
      // Home and clear, then the screen.
      output.Text((redraws ? "\x1b[H\x1b[J" : "") + model_.Screen(now - last, rows_.value_or(kRows)));
      last = now;
      drawn = true;
      if (once_) break;
    }
    context.TryCancel();
    thread.join();
    const grpc::Status status = reader->Finish();
    return interrupt.happened() || (once_ && drawn) ? absl::OkStatus() : Client::ToStatus(status);
  }

 private:
  // Of those that events alone do not tell enough about.
  void DescribeNewOnes(Client& client) {
    std::vector<std::string> ids;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (const auto& [id, wanted] : model_.undescribed()) {
        if (static_cast<int>(ids.size()) == kMostAtOnce) break;
        ids.push_back(id);
      }
    }
    for (const std::string& id : ids) {
      v1::GetGenerationRequest request;
      request.set_generation_id(id);
      grpc::ClientContext context;
      Client::SetDeadline(context);
      v1::Generation generation;
      const bool known = client.control().GetGeneration(&context, request, &generation).ok();
      const std::lock_guard<std::mutex> lock(mutex_);
      if (known) {
        model_.Describe(generation);
      } else {
        model_.undescribed().erase(id);
      }
    }
  }

  static constexpr int kMostAtOnce = 200;
  static constexpr int kRows = 30;

  bool once_ = false;
  std::optional<int32_t> rows_;
  std::mutex mutex_;
  TopModel model_;  // guarded by mutex_
};

}  // namespace

std::unique_ptr<Command> NewWatchCommand() { return std::make_unique<WatchCommand>(); }
std::unique_ptr<Command> NewTopCommand() { return std::make_unique<TopCommand>(); }

}  // namespace fermata::ctl
