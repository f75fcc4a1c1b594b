// Goal: the flags of generate and enqueue become the spec that the user meant, and what is not given is left to the
// server. Method: parse lists of arguments and look at the message.

#include "tools/ctl/spec_flags.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fermata::ctl {
namespace {

using ::testing::ElementsAre;

absl::StatusOr<v1::GenerationSpec> Spec(std::vector<std::string> arguments) {
  FlagSet flags;
  SpecFlags spec_flags;
  spec_flags.AddTo(flags);
  absl::StatusOr<std::vector<std::string>> words = flags.Parse(arguments);
  if (!words.ok()) return words.status();
  return spec_flags.ToSpec(*words);
}

TEST(SpecFlagsTest, WordsBecomeOneTextAndNothingElseIsSet) {
  auto spec = Spec({"Once", "upon a", "time"});
  ASSERT_TRUE(spec.ok()) << spec.status();
  v1::GenerationSpec wanted;
  wanted.mutable_prompt()->set_text("Once upon a time");
  wanted.mutable_sampling();
  EXPECT_EQ(spec->SerializeAsString(), wanted.SerializeAsString());
}

TEST(SpecFlagsTest, SamplingFlagsSetWhatTheyNameZerosIncluded) {
  auto spec = Spec({"--max_tokens=5", "--temperature=0", "--top_k=0", "--top_p=0.9", "--min_p=0.1", "--seed=0",
                    "--stop=a", "--stop=b", "--ignore_eos", "x"});
  ASSERT_TRUE(spec.ok()) << spec.status();
  const v1::SamplingParams& sampling = spec->sampling();
  EXPECT_EQ(sampling.max_tokens(), 5);
  EXPECT_TRUE(sampling.has_temperature());
  EXPECT_EQ(sampling.temperature(), 0.0f);
  EXPECT_TRUE(sampling.has_top_k());
  EXPECT_EQ(sampling.top_p(), 0.9f);
  EXPECT_EQ(sampling.min_p(), 0.1f);
  EXPECT_TRUE(sampling.has_seed());
  EXPECT_THAT(sampling.stop(), ElementsAre("a", "b"));
  EXPECT_TRUE(sampling.ignore_eos());
}

TEST(SpecFlagsTest, ChatMakesTheWordsAMessageOfTheUser) {
  auto spec = Spec({"--chat", "Hello", "there"});
  ASSERT_TRUE(spec.ok()) << spec.status();
  ASSERT_EQ(spec->prompt().chat().messages_size(), 1);
  EXPECT_EQ(spec->prompt().chat().messages(0).role(), "user");
  EXPECT_EQ(spec->prompt().chat().messages(0).content(), "Hello there");
}

TEST(SpecFlagsTest, SystemComesFirstAndImpliesChat) {
  auto spec = Spec({"--system=Be brief", "Hello"});
  ASSERT_TRUE(spec.ok()) << spec.status();
  ASSERT_EQ(spec->prompt().chat().messages_size(), 2);
  EXPECT_EQ(spec->prompt().chat().messages(0).role(), "system");
  EXPECT_EQ(spec->prompt().chat().messages(0).content(), "Be brief");
  EXPECT_EQ(spec->prompt().chat().messages(1).content(), "Hello");
}

TEST(SpecFlagsTest, TheRestOfTheSpec) {
  auto spec = Spec({"--priority=-7", "--tenant=acme", "--traffic_class=batch", "--label=a=1", "--label=b=x=y",
                    "--timeout=1.5s", "--on_disconnect=pause", "x"});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->priority(), -7);
  EXPECT_EQ(spec->tenant(), "acme");
  EXPECT_EQ(spec->traffic_class(), "batch");
  EXPECT_EQ(spec->labels().at("a"), "1");
  EXPECT_EQ(spec->labels().at("b"), "x=y");
  EXPECT_EQ(spec->timeout().seconds(), 1);
  EXPECT_EQ(spec->timeout().nanos(), 500'000'000);
  EXPECT_EQ(spec->on_disconnect(), v1::OnDisconnect::PAUSE);
}

TEST(SpecFlagsTest, NoPromptAndLabelsWithoutAValueAreRefused) {
  EXPECT_EQ(Spec({}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Spec({"--label=a", "x"}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace fermata::ctl
