// Goal: bad input gets a clear error that names the field and what is allowed, and hurts nobody else; what is not
// served yet is refused by name. Method: one bad request after the other against one server, which then still answers.

#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/fermata/v1/control_service.grpc.pb.h"
#include "tests/conformance/conformance_test_base.h"

namespace fermata {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

class LimitsTest : public ConformanceTestBase {
 protected:
  void SetUp() override { Serve(RoomyOptions()); }

  // It lives, and does its work.
  void TearDown() override {
    StreamReader reader(data(), Request("", Spec(3)));
    EXPECT_EQ(reader.AwaitFinish().usage().output_token_count(), 3);
  }

  void ExpectRefused(const v1::GenerationSpec& spec, StatusCode code, const std::string& what) {
    for (const bool data_plane : {true, false}) {
      grpc::Status status;
      if (data_plane) {
        StreamReader reader(data(), Request("", spec));
        status = reader.AwaitEnd();
      } else {
        status = TryEnqueue("", spec);
      }
      EXPECT_EQ(status.error_code(), code) << what;
      EXPECT_THAT(status.error_message(), HasSubstr(what));
    }
  }

  void ExpectInvalid(const v1::GenerationSpec& spec, const std::string& what) {
    ExpectRefused(spec, StatusCode::INVALID_ARGUMENT, what);
  }
};

TEST_F(LimitsTest, Ids) {
  EXPECT_EQ(TryEnqueue(std::string(128, 'a'), Spec(1)).error_code(), StatusCode::OK);
  const grpc::Status too_long = TryEnqueue(std::string(129, 'a'), Spec(1));
  EXPECT_EQ(too_long.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(too_long.error_message(), HasSubstr("129"));
  EXPECT_EQ(TryEnqueue("a/b", Spec(1)).error_code(), StatusCode::INVALID_ARGUMENT);
  v1::Generation chosen;
  EXPECT_TRUE(TryEnqueue("", Spec(1), /*hold=*/false, &chosen).ok());
  EXPECT_FALSE(chosen.generation_id().empty());
}

TEST_F(LimitsTest, Prompts) {
  v1::GenerationSpec spec = Spec(1);
  spec.clear_prompt();
  ExpectInvalid(spec, "prompt");
  spec.mutable_prompt()->set_text("");
  ExpectInvalid(spec, "prompt");
  ExpectInvalid(Spec(kForever, 0, /*prompt_tokens=*/20000), "--context_tokens");
  spec = Spec(1);
  spec.mutable_prompt()->mutable_token_ids()->add_token_ids(64);
  ExpectInvalid(spec, "64");
  spec.mutable_prompt()->mutable_token_ids()->set_token_ids(4, -1);
  ExpectInvalid(spec, "-1");
}

TEST_F(LimitsTest, SamplingParameters) {
  const auto with = [](auto set) {
    v1::GenerationSpec spec = Spec(5);
    set(*spec.mutable_sampling());
    return spec;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ExpectInvalid(with([](v1::SamplingParams& p) { p.set_max_tokens(0); }), "max_tokens");
  ExpectInvalid(with([](v1::SamplingParams& p) { p.set_max_tokens(-3); }), "max_tokens");
  ExpectInvalid(with([](v1::SamplingParams& p) { p.set_temperature(-0.5f); }), "temperature");
  ExpectInvalid(with([nan](v1::SamplingParams& p) { p.set_temperature(nan); }), "temperature");
  ExpectInvalid(with([](v1::SamplingParams& p) { p.set_top_k(-1); }), "top_k");
  ExpectInvalid(with([](v1::SamplingParams& p) { p.set_top_p(0); }), "top_p");
  ExpectInvalid(with([nan](v1::SamplingParams& p) { p.set_top_p(nan); }), "top_p");
  ExpectInvalid(with([](v1::SamplingParams& p) { p.set_min_p(1.5f); }), "min_p");
  ExpectInvalid(with([](v1::SamplingParams& p) { p.set_repetition_penalty(0); }), "repetition_penalty");
  ExpectInvalid(with([](v1::SamplingParams& p) { p.set_frequency_penalty(3); }), "frequency_penalty");
  ExpectInvalid(with([nan](v1::SamplingParams& p) { p.set_presence_penalty(nan); }), "presence_penalty");
  ExpectInvalid(with([](v1::SamplingParams& p) { p.set_logprobs(21); }), "logprobs");
  ExpectInvalid(with([](v1::SamplingParams& p) { p.set_logprobs(-1); }), "logprobs");
  ExpectInvalid(with([](v1::SamplingParams& p) { p.add_stop(""); }), "stop");
  ExpectInvalid(with([](v1::SamplingParams& p) { p.add_stop(std::string(257, 's')); }), "stop");
  ExpectInvalid(with([](v1::SamplingParams& p) { p.add_stop_token_ids(64); }), "stop_token_ids");
  ExpectInvalid(with([nan](v1::SamplingParams& p) { (*p.mutable_logit_bias())[3] = nan; }), "logit_bias");
  ExpectInvalid(with([](v1::SamplingParams& p) { (*p.mutable_logit_bias())[99] = 1; }), "logit_bias");
}

TEST_F(LimitsTest, OtherFieldsOfTheSpec) {
  v1::GenerationSpec spec = Spec(5);
  spec.set_on_disconnect(static_cast<v1::OnDisconnect::Action>(42));
  ExpectInvalid(spec, "42");
  spec = Spec(5);
  spec.mutable_timeout()->set_seconds(-1);
  ExpectInvalid(spec, "timeout");
  spec = Spec(5);
  spec.set_tenant(std::string(129, 't'));
  ExpectInvalid(spec, "tenant");
  spec = Spec(5);
  (*spec.mutable_labels())[""] = "x";
  ExpectInvalid(spec, "labels");
}

TEST_F(LimitsTest, InvalidUtf8InAStringIsRefusedByGrpc) {
  v1::GenerationSpec spec = Spec(5);
  spec.mutable_prompt()->set_text("\xFF\xFE");
  EXPECT_FALSE(TryEnqueue("", spec).ok());
}

TEST_F(LimitsTest, TokensThatAreNoUtf8StreamAsReplacementCharacters) {
  v1::DetokenizeRequest request;
  request.add_token_ids(35);  // 0xFF
  request.add_token_ids(0);
  grpc::ClientContext context;
  v1::DetokenizeResponse response;
  ASSERT_TRUE(data().Detokenize(&context, request, &response).ok());
  EXPECT_EQ(response.text(),
            "\xEF\xBF\xBD"
            "a");
  // A long output of the fake model has broken characters in it: what is streamed is valid all the same, or protobuf
  // would refuse it.
  StreamReader reader(data(), Request("", Spec(400)));
  reader.AwaitFinish();
  EXPECT_THAT(reader.text(), HasSubstr("\xEF\xBF\xBD"));
}

TEST_F(LimitsTest, AMessageOfAHundredMegabytesIsRefused) {
  v1::TokenizeRequest request;
  request.set_text(std::string(100 << 20, 'a'));
  grpc::ClientContext context;
  v1::TokenizeResponse response;
  EXPECT_EQ(data().Tokenize(&context, request, &response).error_code(), StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(LimitsTest, VerbsNeedIdsAndNotTooMany) {
  grpc::ClientContext none;
  v1::OperationResults results;
  EXPECT_EQ(control().Preempt(&none, {}, &results).error_code(), StatusCode::INVALID_ARGUMENT);
  v1::AbortRequest many;
  for (int i = 0; i < 10001; ++i) many.add_generation_ids("g");
  grpc::ClientContext context;
  const grpc::Status status = control().Abort(&context, many, &results);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("10000"));
}

TEST_F(LimitsTest, ListsCheckTheirArguments) {
  const auto list = [&](const v1::ListGenerationsRequest& request) {
    grpc::ClientContext context;
    v1::ListGenerationsResponse response;
    return control().ListGenerations(&context, request, &response).error_code();
  };
  v1::ListGenerationsRequest request;
  request.set_page_size(-1);
  EXPECT_EQ(list(request), StatusCode::INVALID_ARGUMENT);
  request.set_page_size(1001);
  EXPECT_EQ(list(request), StatusCode::INVALID_ARGUMENT);
  request.set_page_size(0);
  request.set_page_token("nonsense");
  EXPECT_EQ(list(request), StatusCode::INVALID_ARGUMENT);
  request.clear_page_token();
  request.add_states(static_cast<v1::Generation::State>(77));
  EXPECT_EQ(list(request), StatusCode::INVALID_ARGUMENT);
}

TEST_F(LimitsTest, ATierThatIsNotConfiguredOrIsNoneIsRefusedAndNothingChanges) {
  Enqueue("g", Spec(3), /*hold=*/true);
  const auto preempt = [&](v1::KvTier::Tier tier, v1::OperationResults& results) {
    v1::PreemptRequest request;
    request.add_generation_ids("g");
    request.set_tier(tier);
    grpc::ClientContext context;
    return control().Preempt(&context, request, &results);
  };
  v1::OperationResults results;
  EXPECT_EQ(preempt(v1::KvTier::NONE, results).error_code(), StatusCode::INVALID_ARGUMENT);
  for (const auto& [tier, flag] :
       {std::pair(v1::KvTier::HOST, "--kv_host_bytes"), {v1::KvTier::DISK, "--kv_disk_dir"}}) {
    results.Clear();
    ASSERT_TRUE(preempt(tier, results).ok());
    EXPECT_EQ(results.results(0).code(), static_cast<int>(StatusCode::FAILED_PRECONDITION));
    EXPECT_THAT(results.results(0).message(), HasSubstr(flag));
  }
}

}  // namespace
}  // namespace fermata
