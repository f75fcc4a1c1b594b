// Goal: tokens that CUDA selects are those that the sampler samples, with every parameter, and so are
// log-probabilities; and they are the same to the bit whatever other rows there are. Method: random rows, some with
// many equal logits, infinite ones or NaN, and random parameters. Where the two differ, the device's token must be the
// sampler's for shares that are a hundred-thousandth larger or smaller: the device's weights are float32.
//
//   select_check [SEED [few]]      few: little, for sanitizers

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/sampling_params.h"
#include "engine/model/sampler.h"
#include "engine/model/token_selection.h"
#include "kernels/backend.h"
#include "tests/kernels/cuda/twins.h"

namespace fermata {
namespace {

using kernels::Backend;
using kernels::Tally;
using kernels::Twins;

constexpr double kSlack = 1e-5;

// One row, and what is asked of it.
struct Case {
  std::vector<float> logits;
  std::vector<TokenId> tokens;
  int32_t prompt = 0;
  SamplingParams params;

  SamplingContext context() const { return {tokens, prompt}; }
};

class SelectCheck {
 public:
  SelectCheck(Twins& twins, uint32_t seed) : twins_(twins), random_(seed) {}

  void Rows(int32_t rows, int32_t size) {
    std::vector<Case> cases;
    for (int32_t r = 0; r < rows; ++r) cases.push_back(MakeCase(r, size));
    const std::vector<Backend::SelectedToken> together = Select(cases);
    for (int32_t r = 0; r < rows; ++r) {
      Compare(cases[r], together[r], absl::StrCat("row ", r, " of ", rows, ", size ", size));
      if (r % 5 != 0) continue;
      const Backend::SelectedToken alone = Select({cases[r]})[0];
      tally_.Expect(absl::StrCat("alone as in company: row ", r, ", size ", size),
                    alone.token == together[r].token &&
                        (cases[r].params.logprobs < 0 || alone.token < 0 || alone.logprob == together[r].logprob));
    }
  }

  int Finish() const { return tally_.Finish(); }

 private:
  float Uniform() { return std::uniform_real_distribution<float>()(random_); }

  std::vector<float> MakeLogits(int32_t kind, int32_t size) {
    std::vector<float> logits(size);
    std::normal_distribution<float> normal(0, kind % 3 == 0 ? 1.0f : 5.0f);
    for (float& logit : logits) {
      logit = normal(random_);
      if (kind % 7 == 3) logit = std::round(logit);  // many equals
      if (kind % 11 == 5) logit = 2.5f;
      if (kind % 13 == 6 && random_() % 2 == 0) logit = -std::numeric_limits<float>::infinity();
    }
    if (kind % 17 == 8) logits[random_() % static_cast<uint32_t>(size)] = std::nanf("");
    if (kind % 19 == 9) std::fill(logits.begin(), logits.end(), -std::numeric_limits<float>::infinity());
    return logits;
  }

  Case MakeCase(int32_t kind, int32_t size) {
    Case made;
    made.logits = MakeLogits(kind, size);
    made.tokens.resize(1 + random_() % 300);
    for (TokenId& token : made.tokens) token = TokenId{static_cast<int32_t>(random_() % static_cast<uint32_t>(size))};
    made.prompt = static_cast<int32_t>(made.tokens.size() / 2);
    SamplingParams& params = made.params;
    params.seed = random_();
    params.temperature = kind % 6 == 0 ? 0.0f : 0.2f + 1.5f * Uniform();
    if (random_() % 2 == 0) params.top_k = 1 + static_cast<int32_t>(random_() % 60);
    if (random_() % 2 == 0) params.top_p = 0.05f + 0.95f * Uniform();
    if (random_() % 3 == 0) params.min_p = 0.3f * Uniform();
    if (random_() % 3 == 0) params.repetition_penalty = 0.7f + Uniform();
    if (random_() % 3 == 0) params.frequency_penalty = Uniform() - 0.5f;
    if (random_() % 3 == 0) params.presence_penalty = Uniform() - 0.5f;
    if (random_() % 3 == 0) params.logit_bias = {{TokenId{size / 2}, 3.0f}};
    if (random_() % 2 == 0) params.logprobs = static_cast<int32_t>(random_() % 21);
    return made;
  }

  std::vector<Backend::SelectedToken> Select(const std::vector<Case>& cases) {
    const int32_t size = static_cast<int32_t>(cases[0].logits.size());
    std::vector<float> logits(size, 0.0f);  // a row before the first
    std::vector<Backend::Selection> selections;
    std::vector<Backend::LogitChange> changes;
    for (const Case& one : cases) {
      logits.insert(logits.end(), one.logits.begin(), one.logits.end());
      tally_.Expect("told to the back end", AppendSelection(one.params, one.context(),
                                                            twins_.cuda().max_logit_changes(), &selections, &changes));
    }
    const Twins::Pair pair = twins_.Make(logits, /*floats=*/true);
    const auto selected = twins_.cuda().SelectTokens(*pair.cuda, 1, size, selections, changes);
    tally_.Expect(absl::StrCat("SelectTokens: ", std::string(selected.status().message())), selected.ok());
    if (!selected.ok()) return std::vector<Backend::SelectedToken>(cases.size());
    return {selected->begin(), selected->end()};
  }

  // The logits as bias and penalties leave them.
  static std::vector<float> Changed(const Case& one) {
    std::vector<Backend::Selection> selections;
    std::vector<Backend::LogitChange> changes;
    AppendSelection(one.params, one.context(), 1 << 30, &selections, &changes);
    std::vector<float> logits = one.logits;
    for (const Backend::LogitChange& change : changes) {
      float& logit = logits[change.token];
      logit += change.bias;
      logit = logit > 0 ? logit / change.repetition : logit * change.repetition;
      logit -= change.penalty;
    }
    return logits;
  }

  // Whether the token is drawn for some shares near those that were asked for.
  static bool IsNear(const Case& one, int32_t token) {
    std::vector<Backend::Selection> selections;
    std::vector<Backend::LogitChange> changes;
    AppendSelection(one.params, one.context(), 1 << 30, &selections, &changes);
    const Backend::Selection& selection = selections[0];
    const std::vector<float> logits = Changed(one);
    if (token < 0 || token >= static_cast<int32_t>(logits.size()) || selection.draw.temperature == 0) return false;
    std::vector<std::pair<float, int32_t>> order;
    for (size_t i = 0; i < logits.size(); ++i) order.emplace_back(-logits[i], static_cast<int32_t>(i));
    std::sort(order.begin(), order.end());
    if (selection.top_k > 0) order.resize(std::min<size_t>(order.size(), selection.top_k));
    std::vector<double> sums = {0};
    for (const auto& [logit, id] : order) {
      sums.push_back(sums.back() + std::exp((order[0].first - double{logit}) / selection.draw.temperature));
    }
    const double all = sums.back();
    const auto kept = [&](double slack) {
      double sum = 0;
      for (size_t i = 0; i < order.size(); ++i) {
        const double weight = sums[i + 1] - sums[i];
        if (i > 0 && weight < selection.min_p * (1 - slack)) break;
        sum = sums[i + 1];
        if (sum >= (selection.top_p + slack) * all) break;
      }
      return sum;
    };
    for (size_t i = 0; i < order.size(); ++i) {
      if (order[i].second != token) continue;
      return sums[i] <= selection.draw.uniform * kept(kSlack) + kSlack * all &&
             sums[i + 1] >= selection.draw.uniform * kept(-kSlack) - kSlack * all;
    }
    return false;
  }

  void Compare(const Case& one, const Backend::SelectedToken& selected, const std::string& what) {
    SampledToken expected;
    Sampler().Sample(one.logits, one.params, one.context(), &expected);
    if (!expected.status.ok()) {
      tally_.Expect(absl::StrCat(what, ": no token, not ", selected.token), selected.token == -1);
      return;
    }
    const bool same = selected.token == Value(expected.token);
    tally_.Expect(absl::StrCat(what, ": token ", Value(expected.token), ", not ", selected.token),
                  same || IsNear(one, selected.token));
    if (one.params.logprobs < 0) return;
    const auto near = [](float a, float b) { return a == b || std::fabs(a - b) < 1e-4f * (1 + std::fabs(b)); };
    if (same) {
      tally_.Expect(absl::StrCat(what, ": log-probability ", expected.logprobs.logprob, ", not ", selected.logprob),
                    near(selected.logprob, expected.logprobs.logprob));
    }
    for (size_t i = 0; i < expected.logprobs.top.size(); ++i) {
      const auto& [token, logprob] = expected.logprobs.top[i];
      tally_.Expect(absl::StrCat(what, ": most likely ", i, " is ", Value(token), ", not ", selected.most_likely[i]),
                    selected.most_likely[i] == Value(token) && near(selected.most_likely_logprobs[i], logprob));
    }
  }

  Twins& twins_;
  std::mt19937 random_;
  Tally tally_;
};

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  const std::unique_ptr<fermata::kernels::Twins> twins = fermata::kernels::Twins::Create();
  if (twins == nullptr) return 0;
  const uint32_t seed = argc > 1 ? static_cast<uint32_t>(std::atoi(argv[1])) : std::random_device()();
  std::printf("{\"check\":\"select\",\"seed\":%u}\n", seed);
  fermata::SelectCheck check(*twins, seed);
  if (argc > 2) {
    for (const int32_t size : {1, 1000, 1025}) check.Rows(20, size);
    return check.Finish();
  }
  for (const int32_t size : {1, 2, 7, 31, 1000, 1023, 1024, 1025, 4100}) check.Rows(60, size);
  for (const int32_t size : {32000, 128256}) check.Rows(40, size);
  return check.Finish();
}
