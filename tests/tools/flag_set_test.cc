// Goal: what a user types reaches the command, and what cannot be understood is refused by name. Method: one FlagSet
// with a flag of each kind, fed with lists of arguments.

#include "tools/ctl/flag_set.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fermata::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FlagSetTest : public ::testing::Test {
 protected:
  FlagSetTest() {
    flags_.AddSwitch("hold", "start paused", &hold_);
    flags_.AddString("tenant", "whom it is for", &tenant_);
    flags_.AddStrings("stop", "where to stop", &stop_);
    flags_.AddInteger("priority", "lower runs sooner", &priority_);
    flags_.AddInteger("seed", "of the random stream", &seed_);
    flags_.AddNumber("top_p", "share of likely tokens", &top_p_);
    flags_.AddDuration("timeout", "from enqueue", &timeout_);
    flags_.AddChoice("on_disconnect", "when the last reader leaves", {"abort", "pause"}, &on_disconnect_);
  }

  absl::StatusOr<std::vector<std::string>> Parse(std::vector<std::string> arguments) { return flags_.Parse(arguments); }

  FlagSet flags_;
  bool hold_ = false;
  std::string tenant_, on_disconnect_;
  std::vector<std::string> stop_;
  std::optional<int32_t> priority_;
  std::optional<uint64_t> seed_;
  std::optional<float> top_p_;
  std::optional<absl::Duration> timeout_;
};

TEST_F(FlagSetTest, ReadsEveryKindOfFlagAndKeepsTheRestInOrder) {
  auto rest = Parse({"a", "--hold", "--tenant=acme", "--stop", "x", "b", "--stop=y", "--priority=-3",
                     "--seed=18446744073709551615", "--top_p=0.5", "--timeout=90s", "--on_disconnect=PAUSE"});
  ASSERT_TRUE(rest.ok()) << rest.status();
  EXPECT_THAT(*rest, ElementsAre("a", "b"));
  EXPECT_TRUE(hold_);
  EXPECT_EQ(tenant_, "acme");
  EXPECT_THAT(stop_, ElementsAre("x", "y"));
  EXPECT_EQ(priority_, -3);
  EXPECT_EQ(seed_, 18446744073709551615u);
  EXPECT_EQ(top_p_, 0.5f);
  EXPECT_EQ(timeout_, absl::Seconds(90));
  EXPECT_EQ(on_disconnect_, "pause");
}

TEST_F(FlagSetTest, FlagsNotGivenStayUnset) {
  ASSERT_TRUE(Parse({}).ok());
  EXPECT_FALSE(priority_.has_value());
  EXPECT_FALSE(top_p_.has_value());
  EXPECT_FALSE(timeout_.has_value());
}

TEST_F(FlagSetTest, AloneTwoDashesEndTheFlags) {
  auto rest = Parse({"--hold", "--", "--tenant=acme", "--"});
  ASSERT_TRUE(rest.ok());
  EXPECT_THAT(*rest, ElementsAre("--tenant=acme", "--"));
  EXPECT_EQ(tenant_, "");
}

TEST_F(FlagSetTest, ASingleDashAndEmptyArgumentsAreNoFlags) {
  auto rest = Parse({"-", "", "-5"});
  ASSERT_TRUE(rest.ok());
  EXPECT_THAT(*rest, ElementsAre("-", "", "-5"));
}

TEST_F(FlagSetTest, AValueMayBeEmptyOrHoldAnEqualsSign) {
  ASSERT_TRUE(Parse({"--tenant=a=b", "--stop="}).ok());
  EXPECT_EQ(tenant_, "a=b");
  EXPECT_THAT(stop_, ElementsAre(""));
}

TEST_F(FlagSetTest, RefusesWhatItCannotReadAndNamesTheFlag) {
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {{"--color"}, "unknown flag --color"},
      {{"--priority=2147483648"}, "--priority=2147483648: not a whole number in range"},
      {{"--priority", "high"}, "--priority=high: not a whole number"},
      {{"--seed=-1"}, "--seed=-1"},
      {{"--top_p=much"}, "--top_p=much: not a number"},
      {{"--timeout=5"}, "--timeout=5: not a duration"},
      {{"--tenant"}, "--tenant needs a value"},
      {{"--hold=yes"}, "--hold takes no value"},
      {{"--on_disconnect=explode"}, "not one of abort, pause"},
  };
  for (const auto& [arguments, message] : cases) {
    auto rest = Parse(arguments);
    EXPECT_EQ(rest.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(rest.status().message()), HasSubstr(message));
  }
}

TEST_F(FlagSetTest, HelpHasALineForEachFlagWithItsValue) {
  EXPECT_THAT(flags_.Help(), HasSubstr("--hold "));
  EXPECT_THAT(flags_.Help(), HasSubstr("--priority=N"));
  EXPECT_THAT(flags_.Help(), HasSubstr("--on_disconnect=abort|pause"));
}

}  // namespace
}  // namespace fermata::ctl
