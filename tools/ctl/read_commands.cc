#include "tools/ctl/read_commands.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/ctl/format.h"

namespace fermata::ctl {
namespace {

class ListCommand : public Command {
 public:
  absl::string_view name() const override { return "list"; }
  absl::string_view operands() const override { return ""; }
  absl::string_view summary() const override { return "List generations in order of arrival"; }

  void AddFlags(FlagSet& flags) override {
    flags.AddChoice("state", "only those in this state", {"QUEUED", "RUNNING", "PREEMPTED", "PAUSED", "FINISHED"},
                    &state_);
    flags.AddString("tenant", "only those of this tenant", request_.mutable_tenant());
    flags.AddString("traffic_class", "only those of this class", request_.mutable_traffic_class());
    flags.AddInteger("limit", "at most so many; default: all", &limit_);
  }

  absl::Status Prepare(std::vector<std::string> operands) override {
    if (!operands.empty()) return absl::InvalidArgumentError("list takes no operands; get shows single generations");
    if (limit_ && *limit_ < 1) return absl::InvalidArgumentError(absl::StrCat("--limit=", *limit_, ": at least 1"));
    v1::Generation::State state;
    if (v1::Generation::State_Parse(state_, &state)) request_.add_states(state);
    return absl::OkStatus();
  }

  absl::Status Run(Client& client, Output& output) override {
    constexpr int64_t kPageSize = 1000;
    int64_t left = limit_.value_or(INT64_MAX);
    bool head = output.json();  // written, or not wanted
    do {
      request_.set_page_size(static_cast<int32_t>(std::min(left, kPageSize)));
      grpc::ClientContext context;
      Client::SetDeadline(context);
      v1::ListGenerationsResponse page;
      absl::Status status = Client::ToStatus(client.control().ListGenerations(&context, request_, &page));
      if (!status.ok()) return status;
      if (!std::exchange(head, true)) output.Text(TableHead());
      for (const v1::Generation& generation : page.generations()) {
        output.json() ? output.Json(generation) : output.Text(TableRow(generation));
      }
      left -= page.generations_size();
      request_.set_page_token(page.next_page_token());
    } while (left > 0 && !request_.page_token().empty());
    return absl::OkStatus();
  }

 private:
  std::string state_;
  std::optional<int64_t> limit_;
  v1::ListGenerationsRequest request_;
};

class GetCommand : public Command {
 public:
  absl::string_view name() const override { return "get"; }
  absl::string_view operands() const override { return "ID..."; }
  absl::string_view summary() const override { return "Show generations as they are now"; }

  void AddFlags(FlagSet& flags) override {}

  absl::Status Prepare(std::vector<std::string> operands) override {
    if (operands.empty()) return absl::InvalidArgumentError("at least one id is needed");
    ids_ = std::move(operands);
    return absl::OkStatus();
  }

  absl::Status Run(Client& client, Output& output) override {
    absl::Status first_error;  // the command's own outcome: whoever runs it prints that one
    for (const std::string& id : ids_) {
      grpc::ClientContext context;
      Client::SetDeadline(context);
      v1::GetGenerationRequest request;
      request.set_generation_id(id);
      v1::Generation generation;
      absl::Status status = Client::ToStatus(client.control().GetGeneration(&context, request, &generation));
      if (status.ok()) {
        output.json() ? output.Json(generation) : output.Text(Details(generation));
      } else if (!first_error.ok()) {
        output.Error(absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message()));
      }
      first_error.Update(status);
    }
    return first_error;
  }

 private:
  std::vector<std::string> ids_;
};

class EngineCommand : public Command {
 public:
  absl::string_view name() const override { return "engine"; }
  absl::string_view operands() const override { return ""; }
  absl::string_view summary() const override { return "Show the engine: model, limits, counts, KV blocks, speed"; }

  void AddFlags(FlagSet& flags) override {}

  absl::Status Prepare(std::vector<std::string> operands) override {
    return operands.empty() ? absl::OkStatus() : absl::InvalidArgumentError("engine takes no operands");
  }

  absl::Status Run(Client& client, Output& output) override {
    grpc::ClientContext context;
    Client::SetDeadline(context);
    v1::Engine engine;
    absl::Status status = Client::ToStatus(client.control().GetEngine(&context, v1::GetEngineRequest(), &engine));
    if (!status.ok()) return status;
    output.json() ? output.Json(engine) : output.Text(Details(engine));
    return absl::OkStatus();
  }
};

}  // namespace

std::unique_ptr<Command> NewListCommand() { return std::make_unique<ListCommand>(); }
std::unique_ptr<Command> NewGetCommand() { return std::make_unique<GetCommand>(); }
std::unique_ptr<Command> NewEngineCommand() { return std::make_unique<EngineCommand>(); }

}  // namespace fermata::ctl
