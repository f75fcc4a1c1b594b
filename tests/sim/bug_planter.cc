#include "tests/sim/bug_planter.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "tests/sim/storm.h"

namespace fermata {

void BugPlanter::OnBatch(std::vector<BatchSlice>& slices) {
  if (planted_) return;
  for (BatchSlice& slice : slices) {
    // What is not written must not be there from before: left by one that began alike, or computed once already.
    const bool is_missed = dropped_.count(slice.key) == 0 &&
                           slice.context[slice.first_position] != Storm::AlikeToken(slice.first_position);
    if (bug_ == Bug::kSkipPosition && slice.token_count > 1 && is_missed) {
      ++slice.first_position;
      --slice.token_count;
      planted_ = true;
      return;
    }
    const BatchSlice& other = slices.front();
    if (bug_ != Bug::kSwapBlock || &slice == &other || slice.first_position == 0) continue;
    // With the same beginning the same block would do.
    if (slice.context.front() == other.context.front()) continue;
    blocks_.assign(slice.blocks.begin(), slice.blocks.end());
    blocks_.front() = other.blocks.front();
    slice.blocks = blocks_;
    planted_ = true;
    return;
  }
}

void BugPlanter::OnReport(Report& report) {
  if (bug_ == Bug::kNone || planted_) return;
  if (bug_ == Bug::kTokenAfterPause && paused_.has_value()) {
    report.events.push_back(TokenSampled{paused_->key, paused_->info->usage.output_token_count, TokenId{0}, "a", {}});
    planted_ = true;
    return;
  }
  for (size_t i = 0; i < report.events.size() && !planted_; ++i) {
    if (std::holds_alternative<TokenSampled>(report.events[i])) OnToken(report, i);
    if (std::holds_alternative<StateChanged>(report.events[i])) OnStateChange(report, i);
    const auto* moved = std::get_if<KvMoved>(&report.events[i]);
    if (moved != nullptr && moved->to == KvTier::kNone) dropped_.insert(moved->key);
  }
  if (planted_) return;
  OnReplies(report);
}

void BugPlanter::OnToken(Report& report, size_t index) {
  TokenSampled& token = std::get<TokenSampled>(report.events[index]);
  if (bug_ == Bug::kRepeatToken) {
    const Event copy = report.events[index];
    report.events.insert(report.events.begin() + static_cast<int64_t>(index), copy);
    planted_ = true;
  } else if (bug_ == Bug::kOffsetGap) {
    ++token.offset;
    planted_ = true;
  } else if (bug_ == Bug::kLoseText && !token.text.empty()) {
    token.text.pop_back();
    planted_ = true;
  } else if (bug_ == Bug::kWrongStep) {
    --report.step;
    planted_ = true;
  }
}

void BugPlanter::OnStateChange(Report& report, size_t index) {
  StateChanged& change = std::get<StateChanged>(report.events[index]);
  const auto position = report.events.begin() + static_cast<int64_t>(index);
  if (change.to == GenerationState::kPaused && change.from == GenerationState::kRunning) paused_ = change;
  if (change.to == GenerationState::kFinished && bug_ == Bug::kDropFinish) {
    report.events.erase(position);
    planted_ = true;
  } else if (change.to == GenerationState::kFinished && bug_ == Bug::kRepeatFinish) {
    const Event copy = report.events[index];
    report.events.insert(position, copy);
    planted_ = true;
  } else if (change.to == GenerationState::kPreempted && change.from == GenerationState::kRunning &&
             bug_ == Bug::kWrongDisplaced) {
    // Somebody that surely exists: the one for whose sake it was displaced comes next.
    for (size_t i = index + 1; i < report.events.size() && !planted_; ++i) {
      const auto* admitted = std::get_if<StateChanged>(&report.events[i]);
      if (admitted == nullptr || admitted->to != GenerationState::kRunning) continue;
      change.key = admitted->key;
      planted_ = true;
    }
  }
}

void BugPlanter::OnReplies(Report& report) {
  if (bug_ == Bug::kSkipRevision && report.step > 20 && !report.events.empty()) {
    ++report.revision;
    planted_ = true;
  }
  if (bug_ == Bug::kDropReply && !report.replies.empty()) {
    report.replies.pop_back();
    planted_ = true;
  }
  if (bug_ != Bug::kWrongAck) return;
  for (Reply& reply : report.replies) {
    auto* results = std::get_if<std::vector<OperationResult>>(&reply.result);
    if (results == nullptr || results->empty() || !results->front().generation.has_value()) continue;
    ++results->front().generation->usage.output_token_count;
    planted_ = true;
    return;
  }
}

}  // namespace fermata
