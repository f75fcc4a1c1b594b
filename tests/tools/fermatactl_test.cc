// Goal: the command line as a whole: commands and their flags are found wherever they stand, wrong usage is told apart
// from a server that refuses, and each has its exit status. Method: run command lines in this process, without a
// server.

#include "tools/ctl/fermatactl.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fermata::ctl {
namespace {

using ::testing::HasSubstr;

class FermatactlTest : public ::testing::Test {
 protected:
  // Nothing ever listens at port 1.
  int Run(std::vector<std::string> arguments) {
    results_.str("");
    notices_.str("");
    const auto environment = [](const std::string& name) {
      return std::string(name == "FERMATA_CONTROL_ADDRESS" || name == "FERMATA_DATA_ADDRESS" ? "127.0.0.1:1" : "");
    };
    return RunFermatactl(arguments, environment, results_, notices_);
  }

  std::ostringstream results_, notices_;
};

TEST_F(FermatactlTest, HelpNamesEveryCommandAndEachHasItsOwn) {
  ASSERT_EQ(Run({"--help"}), kExitOk);
  const std::string help = results_.str();
  for (const std::string name :
       {"generate", "enqueue", "attach", "list", "get", "pause", "continue", "abort", "priority", "engine"}) {
    EXPECT_THAT(help, HasSubstr("\n  " + name + " "));
    EXPECT_EQ(Run({name, "--help"}), kExitOk);
    EXPECT_THAT(results_.str(), HasSubstr("usage: fermatactl " + name));
    EXPECT_THAT(results_.str(), HasSubstr("--json"));
  }
}

TEST_F(FermatactlTest, WrongUsageIsStatus2AndSaysWhereHelpIs) {
  const std::vector<std::string> cases[] = {
      {},
      {"sing"},
      {"generate"},
      {"generate", "--color", "x"},
      {"generate", "--max_tokens=many", "x"},
      {"enqueue", "--hold"},
      {"attach"},
      {"attach", "a", "b"},
      {"pause"},
      {"priority"},
      {"priority", "high", "a"},
      {"priority", "1"},
      {"list", "a"},
      {"list", "--state=asleep"},
      {"list", "--limit=0"},
      {"get"},
      {"engine", "a"},
  };
  for (const auto& arguments : cases) {
    EXPECT_EQ(Run(arguments), kExitUsage) << ::testing::PrintToString(arguments);
    EXPECT_THAT(notices_.str(), HasSubstr("--help"));
    EXPECT_EQ(results_.str(), "");
  }
}

TEST_F(FermatactlTest, AServerThatCannotBeReachedIsStatus1) {
  const std::vector<std::string> cases[] = {
      {"generate", "x"},
      {"enqueue", "--hold", "x"},
      {"attach", "a"},
      {"get", "a", "b"},
      {"pause", "a"},
      {"continue", "a"},
      {"abort", "a"},
      {"priority", "-5", "a"},
      {"engine"},
      {"list", "--json"},
      {"--json", "engine"},
      {"watch"},
      {"top", "--once"},
      {"session", "open", "s"},
      {"session", "keep", "s", "--epoch=1"},
  };
  for (const auto& arguments : cases) {
    EXPECT_EQ(Run(arguments), kExitFailed) << ::testing::PrintToString(arguments);
    EXPECT_THAT(notices_.str(), HasSubstr("error: UNAVAILABLE"));
  }
}

TEST_F(FermatactlTest, CommonFlagsMayStandBeforeTheCommand) {
  EXPECT_EQ(Run({"--control_address", "127.0.0.1:2", "--json", "engine"}), kExitFailed);
  EXPECT_THAT(notices_.str(), HasSubstr("127.0.0.1:2"));
  EXPECT_EQ(Run({"--control_address=127.0.0.1:3", "engine"}), kExitFailed);
  EXPECT_THAT(notices_.str(), HasSubstr("127.0.0.1:3"));
}

}  // namespace
}  // namespace fermata::ctl
