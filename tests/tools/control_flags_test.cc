// Goal: the flags that verbs share say what they were given, and nothing else.
// Method: command lines in, requests out.

#include "tools/ctl/control_flags.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace fermata::ctl {
namespace {

v1::ApplyRequest Filled(const std::vector<std::string>& arguments, v1::ApplyRequest request) {
  FlagSet flags;
  CallerFlags caller;
  caller.AddTo(flags);
  EXPECT_TRUE(flags.Parse(arguments).ok());
  caller.Fill(request);
  return request;
}

TEST(CallerFlagsTest, WhatIsNotGivenStaysAsItIs) {
  v1::ApplyRequest fenced;
  fenced.set_session_id("fair");
  fenced.set_epoch(7);
  EXPECT_EQ(Filled({}, fenced).session_id(), "fair");
  EXPECT_EQ(Filled({}, fenced).epoch(), 7);
  EXPECT_EQ(Filled({}, v1::ApplyRequest()).session_id(), "");
  EXPECT_EQ(Filled({"--session=other", "--epoch=8"}, fenced).session_id(), "other");
  EXPECT_EQ(Filled({"--session=other", "--epoch=8"}, fenced).epoch(), 8);
}

}  // namespace
}  // namespace fermata::ctl
