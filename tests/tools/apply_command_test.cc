// Goal: a file of lines becomes the Apply that it says, or an error that names the line.
// Method: texts in, requests out.

#include "tools/ctl/apply_command.h"

#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fermata::ctl {
namespace {

using testing::HasSubstr;

absl::StatusOr<v1::ApplyRequest> Read(const std::string& text) {
  std::istringstream lines(text);
  return ReadOperations(lines);
}

TEST(ReadOperationsTest, EveryVerbInItsOrder) {
  const absl::StatusOr<v1::ApplyRequest> request =
      Read("# a swap\n\npause a b\r\n  continue c\nabort\td\npriority -3 e f\n");
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->operations_size(), 4);
  EXPECT_EQ(request->operations(0).preempt().generation_ids_size(), 2);
  EXPECT_EQ(request->operations(0).preempt().generation_ids(1), "b");
  EXPECT_EQ(request->operations(1).resume().generation_ids(0), "c");
  EXPECT_EQ(request->operations(2).abort().generation_ids(0), "d");
  EXPECT_EQ(request->operations(3).set_priority().priority(), -3);
  EXPECT_EQ(request->operations(3).set_priority().generation_ids(1), "f");
}

TEST(ReadOperationsTest, ErrorsNameTheLine) {
  EXPECT_THAT(std::string(Read("pause a\nstop b\n").status().message()), HasSubstr("line 2: 'stop'"));
  EXPECT_THAT(std::string(Read("pause\n").status().message()), HasSubstr("line 1: at least one id"));
  EXPECT_THAT(std::string(Read("priority high a\n").status().message()), HasSubstr("line 1: a priority"));
  EXPECT_FALSE(Read("\n# nothing\n").ok());
}

}  // namespace
}  // namespace fermata::ctl
