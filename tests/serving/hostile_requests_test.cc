// Goal: whatever bytes parse as a request are converted or refused with words, and nothing else happens.
// Method: requests of both planes with every field set, their bytes changed at random, through every conversion.

#include <cstdint>
#include <random>
#include <string>

#include "control/request_checks.h"
#include "control/verb_conversion.h"
#include "engine/serving/spec_conversion.h"
#include "gtest/gtest.h"
#include "proto/fermata/v1/inference_service.pb.h"
#include "tests/fakes/test_server.h"

namespace fermata {
namespace {

constexpr int kRounds = 4000;

// Every refusal has words.
template <typename Result>
void ExpectWords(const Result& result) {
  if (result.ok()) return;
  EXPECT_FALSE(result.status().message().empty());
}

v1::GenerationSpec FullSpec() {
  v1::GenerationSpec spec;
  spec.mutable_prompt()->mutable_chat()->add_messages()->set_role("user");
  spec.mutable_prompt()->mutable_chat()->mutable_messages(0)->set_content("a text");
  v1::SamplingParams* sampling = spec.mutable_sampling();
  sampling->set_max_tokens(20);
  sampling->set_temperature(0.5f);
  sampling->set_top_k(7);
  sampling->set_top_p(0.9f);
  sampling->set_seed(3);
  sampling->add_stop("end");
  sampling->add_stop_token_ids(4);
  (*sampling->mutable_logit_bias())[5] = 1.5f;
  sampling->set_logprobs(2);
  spec.set_priority(-3);
  spec.set_tenant("red");
  spec.set_traffic_class("batch");
  (*spec.mutable_labels())["key"] = "value";
  spec.mutable_timeout()->set_seconds(9);
  spec.set_on_disconnect(v1::OnDisconnect::PAUSE);
  spec.set_hold_on_stop(true);
  return spec;
}

v1::ApplyRequest FullApply() {
  v1::ApplyRequest apply;
  v1::EnqueueRequest* enqueue = apply.add_operations()->mutable_enqueue();
  enqueue->set_generation_id("g");
  *enqueue->mutable_spec() = FullSpec();
  enqueue->set_hold(true);
  enqueue->mutable_lease()->set_nanos(5);
  v1::PreemptRequest* preempt = apply.add_operations()->mutable_preempt();
  preempt->mutable_selector()->set_tenant("red");
  preempt->mutable_selector()->add_states(v1::Generation::RUNNING);
  preempt->set_on_lease_expiry(v1::OnLeaseExpiry::ABORT);
  preempt->set_reason("why not");
  v1::ContinueRequest* resume = apply.add_operations()->mutable_resume();
  resume->add_generation_ids("g");
  resume->mutable_append()->mutable_token_ids()->add_token_ids(3);
  resume->set_append_id("turn");
  resume->set_max_tokens(40);
  apply.add_operations()->mutable_abort()->add_generation_ids("h");
  apply.add_operations()->mutable_set_priority()->add_generation_ids("i");
  apply.set_atomic(true);
  apply.set_session_id("s");
  apply.set_epoch(8);
  return apply;
}

// Calls `convert` with what is left of `request` after its bytes were changed.
template <typename Request, typename Convert>
void Torment(const Request& request, Convert convert) {
  const std::string bytes = request.SerializeAsString();
  std::mt19937 random(11);
  int parsed = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::string changed = bytes;
    for (int n = 0; n < 1 + round % 4; ++n) changed[random() % changed.size()] = static_cast<char>(random());
    if (round % 5 == 0) changed.resize(random() % changed.size());
    Request hostile;
    if (!hostile.ParseFromString(changed)) continue;
    ++parsed;
    convert(hostile);
  }
  EXPECT_GT(parsed, kRounds / 20);
}

TEST(HostileRequestsTest, Specs) {
  Torment(FullSpec(), [](const v1::GenerationSpec& spec) {
    ExpectWords(ToGenerationSpec(spec, OnDisconnect::kAbort, FakeModelText()));
    DigestBody(spec, /*hold=*/false);
  });
}

TEST(HostileRequestsTest, Applies) {
  Torment(FullApply(), [](const v1::ApplyRequest& apply) {
    ExpectWords(ToCommand(apply, FakeModelText()));
    for (const v1::Operation& operation : apply.operations()) {
      ExpectWords(ToCommand(operation.enqueue(), FakeModelText()));
      ExpectWords(ToCommand(operation.preempt()));
      ExpectWords(ToCommand(operation.resume(), FakeModelText()));
      ExpectWords(ToCommand(operation.abort()));
      ExpectWords(ToCommand(operation.set_priority()));
    }
  });
}

TEST(HostileRequestsTest, ListsAndSessions) {
  v1::ListGenerationsRequest list;
  list.add_states(v1::Generation::PAUSED);
  list.set_tenant("red");
  list.set_page_size(7);
  list.set_page_token("12");
  Torment(list, [](const v1::ListGenerationsRequest& request) { ExpectWords(ToListCommand(request, 1000)); });
  v1::OpenSessionRequest open;
  open.set_session_id("s");
  open.mutable_ttl()->set_seconds(9);
  open.set_takeover(true);
  Torment(open, [](const v1::OpenSessionRequest& request) { ExpectWords(ToCommand(request)); });
  v1::CloseSessionRequest close;
  close.set_session_id("s");
  close.set_epoch(1234567);
  Torment(close, [](const v1::CloseSessionRequest& request) { ExpectWords(ToCommand(request)); });
}

}  // namespace
}  // namespace fermata
