#include "tools/bench/gpu/engine_figures.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace fermata {
namespace {

constexpr int32_t kForever = 6000;  // tokens
constexpr int32_t kBatchPriority = 10;
constexpr int32_t kSwapsPerSecond = 50;

double Percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
}

double Milliseconds(absl::Duration duration) { return absl::ToDoubleMilliseconds(duration); }

// Where `met` and `ratio` follow from one value and its aim; no aim: null.
std::string AtMost(const std::string& name, double value, double aim) {
  if (aim <= 0) return "";
  return absl::StrFormat(",\"%s_at_most\":%.3f,\"%s_met\":%s,\"%s_ratio\":%.3f", name, aim, name,
                         value <= aim ? "true" : "false", name, aim / value);
}

std::string AtLeast(const std::string& name, double value, double aim) {
  if (aim <= 0) return "";
  return absl::StrFormat(",\"%s_at_least\":%.3f,\"%s_met\":%s,\"%s_ratio\":%.3f", name, aim, name,
                         value >= aim ? "true" : "false", name, value / aim);
}

void Print(const std::string& figure, const std::string& fields) {
  std::printf("{\"bench\":\"engine\",\"figure\":\"%s\",%s}\n", figure.c_str(), fields.c_str());
  std::fflush(stdout);
}

// Steps of `slices` that only decode: how long each took, and from each to the next one's beginning.
struct DecodeSteps {
  std::vector<double> step_ms;
  std::vector<double> gap_ms;
  double context = 0;  // of one, on average
};

DecodeSteps DecodeStepsOf(const std::vector<MeasuredStep>& steps, int32_t slices) {
  DecodeSteps result;
  int64_t tokens = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (!steps[i].decodes_only() || steps[i].slices != slices) continue;
    result.step_ms.push_back(Milliseconds(steps[i].end - steps[i].begin));
    tokens += steps[i].context_tokens;
    if (i + 1 < steps.size()) result.gap_ms.push_back(Milliseconds(steps[i + 1].begin - steps[i].end));
  }
  if (!result.step_ms.empty()) result.context = double(tokens) / slices / double(result.step_ms.size());
  return result;
}

// What a step takes in the steps of `steps` right before and after `time`, from its beginning to the next one's.
// Contexts grow as one measures, and steps with them. `steps` are in order.
double StepAround(absl::Time time, const std::vector<MeasuredStep>& steps, int32_t slices) {
  constexpr int64_t kEachWay = 30;
  const auto middle =
      std::partition_point(steps.begin(), steps.end(), [time](const MeasuredStep& step) { return step.begin < time; });
  const auto from = middle - std::min<int64_t>(kEachWay, middle - steps.begin());
  const auto to = middle + std::min<int64_t>(kEachWay, steps.end() - middle);
  const DecodeSteps near = DecodeStepsOf({from, to}, slices);
  return Percentile(near.step_ms, 0.5) + Percentile(near.gap_ms, 0.5);
}

std::vector<std::string> Names(const std::string& prefix, int32_t count) {
  std::vector<std::string> names;
  for (int32_t i = 0; i < count; ++i) names.push_back(absl::StrCat(prefix, i));
  return names;
}

}  // namespace

EngineOptions EngineFigures::Options(int32_t slots) const {
  EngineOptions options = base_;
  options.max_running = slots;
  return options;
}

std::vector<std::string> EngineFigures::Fill(EngineSession& session, const std::string& prefix, int32_t count,
                                             int32_t prompt, int32_t priority) {
  const std::vector<std::string> names = Names(prefix, count);
  for (const std::string& name : names) session.Enqueue(name, prompt, kForever, priority);
  session.AwaitFirstTokens(names);
  return names;
}

void EngineFigures::Decode() {
  for (const FigureSizes::Decode& decode : sizes_.decodes) {
    EngineOptions options = Options(decode.streams);
    options.step_tokens = sizes_.fill_step_tokens;  // so that the first ones are not far ahead of the last
    EngineSession session(options, 0, decoder_, records_);
    const std::vector<std::string> names = Fill(session, "d", decode.streams, decode.prompt, 0);
    records_.TakeSteps();
    session.AwaitTokens(session.token_total() + int64_t{decode.steps} * decode.streams);
    const DecodeSteps steps = DecodeStepsOf(records_.TakeSteps(), decode.streams);
    const double step = Percentile(steps.step_ms, 0.5);
    const double gap = Percentile(steps.gap_ms, 0.5);
    Print("decode",
          absl::StrFormat("\"streams\":%d,\"context\":%.0f,\"steps\":%d,\"step_ms\":%.3f,\"step_p99_ms\":%.3f,"
                          "\"gap_us\":%.0f,\"gap_share\":%.4f,\"tokens_per_s\":%.1f",
                          decode.streams, steps.context, steps.step_ms.size(), step, Percentile(steps.step_ms, 0.99),
                          gap * 1e3, gap / step, decode.streams * 1e3 / (step + gap)) +
              AtMost("step_and_gap_ms", step + gap, sizes_.absolute_aims ? decode.at_most_ms : 0) +
              AtMost("gap_share", gap / step, 0.02));
  }
}

void EngineFigures::Workload(const std::vector<Request>& requests) {
  EngineSession session(Options(sizes_.workload_slots), 0, decoder_, records_);
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  const absl::Time begin = absl::Now();
  int64_t count = 0;
  for (const Request& request : requests) {
    if (sizes_.workload_requests > 0 && count == sizes_.workload_requests) break;
    session.Enqueue(absl::StrCat("w", count++), request.prompt, request.output);
    prompt_tokens += request.prompt;
    output_tokens += request.output;
  }
  session.AwaitFinished(count);
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  const std::vector<MeasuredStep> steps = records_.TakeSteps();
  double computing = 0;
  int64_t slices = 0;
  for (const MeasuredStep& step : steps) {
    computing += absl::ToDoubleSeconds(step.end - step.begin);
    slices += step.slices;
  }
  const double rate = static_cast<double>(output_tokens) / seconds;
  Print("workload",
        absl::StrFormat("\"requests\":%d,\"slots\":%d,\"step_tokens\":%d,\"seconds\":%.2f,\"output_tokens_per_s\":%.1f,"
                        "\"tokens_per_s\":%.1f,\"steps\":%d,\"slices_per_step\":%.1f,\"computing_share\":%.4f",
                        count, sizes_.workload_slots, base_.step_tokens, seconds, rate,
                        static_cast<double>(prompt_tokens + output_tokens) / seconds, steps.size(),
                        static_cast<double>(slices) / static_cast<double>(steps.size()), computing / seconds) +
            AtLeast("output_tokens_per_s", rate, sizes_.absolute_aims ? sizes_.workload_per_second : 0));
}

void EngineFigures::Interactive() {
  EngineSession session(Options(sizes_.slots), 0, decoder_, records_);
  Fill(session, "batch", sizes_.slots, sizes_.context, kBatchPriority);
  records_.TakeSteps();
  const std::vector<std::string> names = Names("urgent", sizes_.arrivals);
  for (int32_t i = 0; i < sizes_.arrivals; ++i) {
    session.Enqueue(names[i], sizes_.interactive, 4);
    session.AwaitFirstTokens({names[i]});
    absl::SleepFor(absl::Milliseconds(10) + absl::Microseconds(731 * (i % 37)));
  }
  std::vector<double> first_ms;
  const std::map<std::string, SeenGeneration> all = session.Seen();
  for (const std::string& name : names) first_ms.push_back(Milliseconds(all.at(name).first_token - all.at(name).asked));
  const double step = Percentile(DecodeStepsOf(records_.TakeSteps(), sizes_.slots).step_ms, 0.5);
  const double p99 = Percentile(first_ms, 0.99);
  Print("interactive",
        absl::StrFormat("\"slots\":%d,\"prompt\":%d,\"arrivals\":%d,\"decode_step_ms\":%.3f,"
                        "\"first_token_p50_ms\":%.3f,\"first_token_p99_ms\":%.3f",
                        sizes_.slots, sizes_.interactive, sizes_.arrivals, step, Percentile(first_ms, 0.5), p99) +
            AtMost("first_token_p99_ms", p99, sizes_.absolute_aims ? sizes_.interactive_ms : 0));
}

void EngineFigures::Pause() {
  EngineSession session(Options(sizes_.slots), 0, decoder_, records_);
  const std::vector<std::string> names = Fill(session, "g", sizes_.slots, sizes_.context, 0);
  records_.TakeSteps();
  std::vector<absl::Time> begins;
  std::vector<double> preempt_ms, continue_ms;
  for (int32_t i = 0; i < sizes_.pauses; ++i) {
    const std::string& name = names[static_cast<size_t>(i) % names.size()];
    absl::SleepFor(absl::Milliseconds(10) + absl::Microseconds(137 * (i % 73)));
    begins.push_back(absl::Now());
    const int64_t step = session.Preempt({name});
    preempt_ms.push_back(Milliseconds(absl::Now() - begins.back()));
    absl::SleepFor(absl::Milliseconds(10) + absl::Microseconds(211 * (i % 47)));
    const absl::Time begin = absl::Now();
    session.Continue({name});
    session.AwaitTokenAfter(name, step);
    continue_ms.push_back(Milliseconds(absl::Now() - begin));
  }
  const std::vector<MeasuredStep> all = records_.TakeSteps();
  // Of what each may take: one step and 1 ms, or two steps and 1 ms, as steps were then.
  std::vector<double> preempt_share, continue_share;
  for (size_t i = 0; i < begins.size(); ++i) {
    const double step = StepAround(begins[i], all, sizes_.slots);
    preempt_share.push_back(preempt_ms[i] / (step + 1));
    continue_share.push_back(continue_ms[i] / (2 * step + 1));
  }
  const DecodeSteps steps = DecodeStepsOf(all, sizes_.slots);
  Print("pause",
        absl::StrFormat("\"running\":%d,\"pauses\":%d,\"step_ms\":%.3f,\"step_p99_ms\":%.3f,\"first_step_ms\":%.3f,"
                        "\"last_step_ms\":%.3f,\"preempt_p50_ms\":%.3f,\"preempt_p99_ms\":%.3f,"
                        "\"continue_p50_ms\":%.3f,\"continue_p99_ms\":%.3f,\"preempt_share_p99\":%.3f,"
                        "\"continue_share_p99\":%.3f",
                        sizes_.slots, sizes_.pauses, Percentile(steps.step_ms, 0.5) + Percentile(steps.gap_ms, 0.5),
                        Percentile(steps.step_ms, 0.99), StepAround(begins.front(), all, sizes_.slots),
                        StepAround(begins.back(), all, sizes_.slots), Percentile(preempt_ms, 0.5),
                        Percentile(preempt_ms, 0.99), Percentile(continue_ms, 0.5), Percentile(continue_ms, 0.99),
                        Percentile(preempt_share, 0.99), Percentile(continue_share, 0.99)) +
            AtMost("preempt_share_p99", Percentile(preempt_share, 0.99), 1) +
            AtMost("continue_share_p99", Percentile(continue_share, 0.99), 1));
}

void EngineFigures::Park() {
  const int64_t blocks = (sizes_.long_context + kForever) / base_.block_tokens + 2;
  EngineSession session(Options(sizes_.slots), blocks * records_.runner().kv_block_bytes(), decoder_, records_);
  const std::vector<std::string> long_one = Fill(session, "long", 1, sizes_.long_context, 0);
  Fill(session, "g", sizes_.slots - 1, sizes_.context, 0);
  records_.TakeSteps();
  records_.TakeCopies();
  std::vector<double> asked_out_ms, asked_in_ms;
  for (int32_t i = 0; i < sizes_.parks; ++i) {
    absl::Time begin = absl::Now();
    const int64_t step = session.Preempt(long_one, KvTier::kHost);
    session.AwaitTier(long_one[0], KvTier::kHost);
    asked_out_ms.push_back(Milliseconds(absl::Now() - begin));
    absl::SleepFor(absl::Milliseconds(250));
    begin = absl::Now();
    session.Continue(long_one);
    session.AwaitTokenAfter(long_one[0], step);
    asked_in_ms.push_back(Milliseconds(absl::Now() - begin));
    absl::SleepFor(absl::Milliseconds(100));
  }
  // The copies of one move follow each other; moves are far apart.
  std::vector<MeasuredCopy> moves;
  for (const MeasuredCopy& copy : records_.TakeCopies()) {
    const bool same = !moves.empty() && moves.back().to_host == copy.to_host &&
                      copy.begin - moves.back().end < absl::Milliseconds(20);
    if (same) {
      moves.back().end = copy.end;
    } else {
      moves.push_back(copy);
    }
  }
  std::vector<double> out_ms, in_ms, alone_ms, beside_ms;
  for (const MeasuredCopy& move : moves) {
    (move.to_host ? out_ms : in_ms).push_back(Milliseconds(move.end - move.begin));
  }
  for (const MeasuredStep& step : records_.TakeSteps()) {
    if (!step.decodes_only() || step.slices != sizes_.slots - 1) continue;
    const bool beside = std::any_of(moves.begin(), moves.end(), [&](const MeasuredCopy& move) {
      return step.begin < move.end && move.begin < step.end;
    });
    (beside ? beside_ms : alone_ms).push_back(Milliseconds(step.end - step.begin));
  }
  const double out = Percentile(out_ms, 0.5);
  const double in = Percentile(in_ms, 0.5);
  const double slower = Percentile(beside_ms, 0.99) / std::max(Percentile(alone_ms, 0.99), 1e-6);
  const double aim = sizes_.absolute_aims ? sizes_.block_ms : 0;
  Print("park",
        absl::StrFormat("\"context\":%d,\"parks\":%d,\"to_host_ms\":%.3f,\"from_host_ms\":%.3f,"
                        "\"preempt_to_host_ms\":%.3f,\"continue_to_token_ms\":%.3f,\"others\":%d,\"step_p50_ms\":%.3f,"
                        "\"step_p99_ms\":%.3f,\"beside_steps\":%d,\"beside_p50_ms\":%.3f,\"beside_p99_ms\":%.3f",
                        sizes_.long_context, sizes_.parks, out, in, Percentile(asked_out_ms, 0.5),
                        Percentile(asked_in_ms, 0.5), sizes_.slots - 1, Percentile(alone_ms, 0.5),
                        Percentile(alone_ms, 0.99), beside_ms.size(), Percentile(beside_ms, 0.5),
                        Percentile(beside_ms, 0.99)) +
            AtMost("to_host_ms", out, aim) + AtMost("from_host_ms", in, aim) +
            AtMost("beside_p99", slower, beside_ms.empty() ? 0 : 1.1));
}

double EngineFigures::SwapSpan(EngineSession& session, int32_t swaps_per_second, std::vector<std::string>& running,
                               std::vector<std::string>& paused) const {
  const absl::Time begin = absl::Now();
  const absl::Duration span = absl::Seconds(sizes_.swap_span_s);
  const int64_t before = session.token_total();
  if (swaps_per_second == 0) {
    absl::SleepFor(span / 2);
    session.Swap(running, paused);
    std::swap(running, paused);
    absl::SleepFor(begin + span - absl::Now());
  }
  // The one that has run longest goes, the one that has rested longest comes.
  const int64_t swaps = std::llround(swaps_per_second * sizes_.swap_span_s);
  for (int64_t i = 0; i < swaps; ++i) {
    absl::SleepFor(begin + static_cast<double>(i) * span / static_cast<double>(swaps) - absl::Now());
    session.Swap({running.front()}, {paused.front()});
    std::swap(running.front(), paused.front());
    std::rotate(running.begin(), running.begin() + 1, running.end());
    std::rotate(paused.begin(), paused.begin() + 1, paused.end());
  }
  absl::SleepFor(begin + span - absl::Now());
  return static_cast<double>(session.token_total() - before) / absl::ToDoubleSeconds(absl::Now() - begin);
}

void EngineFigures::Swaps() {
  EngineSession session(Options(sizes_.slots), 0, decoder_, records_);
  std::vector<std::string> paused = Fill(session, "a", sizes_.slots, sizes_.context / 2, 0);
  session.Preempt(paused);
  std::vector<std::string> running = Fill(session, "b", sizes_.slots, sizes_.context / 2, 0);
  // In turn, so that contexts that grow cost both the same: each with is held against those before and after it.
  const double before = SwapSpan(session, 0, running, paused);
  const double with = SwapSpan(session, kSwapsPerSecond, running, paused);
  const double between = SwapSpan(session, 0, running, paused);
  const double again = SwapSpan(session, kSwapsPerSecond, running, paused);
  const double after = SwapSpan(session, 0, running, paused);
  const double share = (with / ((before + between) / 2) + again / ((between + after) / 2)) / 2;
  Print("swaps", absl::StrFormat("\"slots\":%d,\"resident\":%d,\"pauses_per_s\":%d,\"continues_per_s\":%d,"
                                 "\"tokens_per_s_without\":[%.1f,%.1f,%.1f],\"tokens_per_s_with\":[%.1f,%.1f],"
                                 "\"throughput\":%.4f",
                                 sizes_.slots, 2 * sizes_.slots, kSwapsPerSecond, kSwapsPerSecond, before, between,
                                 after, with, again, share) +
                     AtLeast("throughput", share, 0.99));
}

void EngineFigures::Streams() {
  EngineSession session(Options(sizes_.workload_slots), 0, decoder_, records_);
  const std::vector<std::string> names = Names("s", sizes_.workload_slots);
  for (const std::string& name : names) session.Enqueue(name, sizes_.stream_prompt, sizes_.stream_output);
  session.AwaitFirstTokens(names);
  const absl::Time from = absl::Now();
  const int64_t before = session.token_total();
  session.AwaitFinished(1);
  const double seconds = absl::ToDoubleSeconds(absl::Now() - from);
  const double rate = static_cast<double>(session.token_total() - before) / seconds;
  Print("streams", absl::StrFormat("\"streams\":%d,\"prompt\":%d,\"output\":%d,\"seconds\":%.2f,\"tokens_per_s\":%.1f",
                                   sizes_.workload_slots, sizes_.stream_prompt, sizes_.stream_output, seconds, rate));
}

}  // namespace fermata
