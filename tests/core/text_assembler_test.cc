// Goal: output text is valid UTF-8, loses nothing, never shows a part of a stop string, and does not depend on where
// tokens were cut. Method: every text is fed whole, byte by byte, and cut in two and in three at every border; random
// texts over a small alphabet are compared with a search in the whole text.

#include "engine/core/text_assembler.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "engine/core/stop_matcher.h"
#include "engine/core/utf8_stream.h"
#include "gtest/gtest.h"

namespace fermata {
namespace {

const char kReplacement[] = "\xEF\xBF\xBD";

struct Outcome {
  std::string text;
  bool stopped = false;

  friend bool operator==(const Outcome& a, const Outcome& b) { return a.text == b.text && a.stopped == b.stopped; }
  friend std::ostream& operator<<(std::ostream& out, const Outcome& o) {
    return out << '"' << o.text << '"' << (o.stopped ? " stopped" : "");
  }
};

Outcome Feed(const std::vector<std::string>& stop, const std::vector<std::string>& pieces) {
  TextAssembler assembler(stop);
  Outcome outcome;
  for (const std::string& piece : pieces) {
    outcome.stopped = assembler.Append(piece, &outcome.text);
    if (outcome.stopped) break;
  }
  const size_t size = outcome.text.size();
  assembler.Flush(&outcome.text);
  EXPECT_TRUE(!outcome.stopped || outcome.text.size() == size) << "text after a stop string";
  return outcome;
}

// Feeds `bytes` in every way to cut it in up to three, and byte by byte; all must give `expected`.
void ExpectHoweverCut(const std::vector<std::string>& stop, const std::string& bytes, const Outcome& expected) {
  std::vector<std::string> single;
  for (const char c : bytes) single.emplace_back(1, c);
  EXPECT_EQ(Feed(stop, single), expected);
  for (size_t i = 0; i <= bytes.size(); ++i) {
    for (size_t j = i; j <= bytes.size(); ++j) {
      EXPECT_EQ(Feed(stop, {bytes.substr(0, i), bytes.substr(i, j - i), bytes.substr(j)}), expected) << i << " " << j;
    }
  }
}

TEST(TextAssemblerTest, TextWithoutStopStringsPassesAtOnce) {
  TextAssembler assembler({});
  std::string text;
  EXPECT_FALSE(assembler.Append("hello", &text));
  EXPECT_EQ(text, "hello");
}

TEST(TextAssemblerTest, AStopStringIsCutWithWhatFollowsIt) {
  ExpectHoweverCut({"END"}, "one END two", {"one ", true});
  ExpectHoweverCut({"END"}, "END", {"", true});
  ExpectHoweverCut({"END"}, "ENEND", {"EN", true});
  ExpectHoweverCut({"\n\n"}, "a\nb\n\nc", {"a\nb", true});
}

TEST(TextAssemblerTest, WhatOnlyLookedLikeAStopStringIsReleased) {
  ExpectHoweverCut({"END"}, "EN EN", {"EN EN", false});
  ExpectHoweverCut({"aab"}, "aaaac", {"aaaac", false});
  ExpectHoweverCut({"aab"}, "aaaab", {"aa", true});
  ExpectHoweverCut({"ababc"}, "abababc", {"ab", true});
}

TEST(TextAssemblerTest, TheFirstOfSeveralStopStringsWins) {
  ExpectHoweverCut({"xyz", "b"}, "a b xyz", {"a ", true});
  ExpectHoweverCut({"bc", "abcd"}, "0abcd", {"0a", true});
  // Both end with the same byte: nothing of either is left.
  ExpectHoweverCut({"c", "abc"}, "0abc", {"0", true});
}

TEST(TextAssemblerTest, HoldsBackOnlyWhatMayBecomeAStopString) {
  TextAssembler assembler(std::vector<std::string>{"STOP"});
  std::string text;
  EXPECT_FALSE(assembler.Append("abcST", &text));
  EXPECT_EQ(text, "abc");
  EXPECT_FALSE(assembler.Append("A", &text));
  EXPECT_EQ(text, "abcSTA");
}

TEST(TextAssemblerTest, CharactersAreNeverCut) {
  const std::string bytes = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x8E\xB5z";
  ExpectHoweverCut({}, bytes, {bytes, false});
  TextAssembler assembler({});
  std::string text;
  assembler.Append("\xF0\x9F\x8E", &text);
  EXPECT_EQ(text, "");
  assembler.Append("\xB5", &text);
  EXPECT_EQ(text, "\xF0\x9F\x8E\xB5");
}

TEST(TextAssemblerTest, AStopStringOfSeveralByteCharactersIsFound) {
  ExpectHoweverCut({"\xE2\x82\xAC"}, "1 \xE2\x82\xAC 2", {"1 ", true});
  // A neighbour that shares its first two bytes is not it.
  ExpectHoweverCut({"\xE2\x82\xAC"}, "1 \xE2\x82\xAD 2", {"1 \xE2\x82\xAD 2", false});
}

TEST(TextAssemblerTest, AStopStringAfterHalfACharacter) {
  ExpectHoweverCut({"END"},
                   "a\xE2\x82"
                   "END",
                   {std::string("a") + kReplacement, true});
}

TEST(TextAssemblerTest, InvalidBytesBecomeReplacementCharacters) {
  const std::string r = kReplacement;
  ExpectHoweverCut({}, "a\xFFz", {"a" + r + "z", false});
  ExpectHoweverCut({}, "\x80", {r, false});                          // continuation without a beginning
  ExpectHoweverCut({}, "\xC0\xAF", {r + r, false});                  // overlong
  ExpectHoweverCut({}, "\xE0\x9F\x80", {r + r + r, false});          // overlong
  ExpectHoweverCut({}, "\xED\xA0\x80", {r + r + r, false});          // surrogate
  ExpectHoweverCut({}, "\xF4\x90\x80\x80", {r + r + r + r, false});  // above U+10FFFF
  ExpectHoweverCut({}, "\xF0\x9F\x8E", {r, false});                  // ends in mid-character: one piece
  ExpectHoweverCut({},
                   "\xE2\x82"
                   "a",
                   {r + "a", false});
  ExpectHoweverCut({}, "\xE2\xE2\x82\xAC", {r + "\xE2\x82\xAC", false});
}

// What the text must be: the match that ends first, the longest of those, searched in the whole.
Outcome Reference(const std::vector<std::string>& stop, const std::string& bytes) {
  for (size_t end = 1; end <= bytes.size(); ++end) {
    size_t longest = 0;
    for (const std::string& s : stop) {
      if (s.size() <= end && bytes.compare(end - s.size(), s.size(), s) == 0) longest = std::max(longest, s.size());
    }
    if (longest > 0) return {bytes.substr(0, end - longest), true};
  }
  return {bytes, false};
}

TEST(TextAssemblerTest, RandomTextsAgreeWithASearchInTheWhole) {
  std::mt19937 random(7);
  const auto random_string = [&random](size_t least, size_t most) {
    std::string s(least + random() % (most - least + 1), 'a');
    for (char& c : s) c = static_cast<char>('a' + random() % 2);
    return s;
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stop(random() % 4);
    for (std::string& s : stop) s = random_string(1, 8);
    const std::string bytes = random_string(0, 40);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < bytes.size();) {
      pieces.push_back(bytes.substr(at, random() % 6));
      at += pieces.back().size();
    }
    EXPECT_EQ(Feed(stop, pieces), Reference(stop, bytes)) << "round " << round;
  }
}

TEST(StopMatcherTest, HoldsTheLongestBeginningOfAPattern) {
  StopMatcher matcher(std::vector<std::string>{"abcd", "bcx"});
  EXPECT_EQ(matcher.Advance('a'), 0);
  EXPECT_EQ(matcher.Advance('b'), 0);
  EXPECT_EQ(matcher.Advance('c'), 0);
  EXPECT_EQ(matcher.held_count(), 3);
  EXPECT_EQ(matcher.Advance('x'), 3);
  EXPECT_EQ(matcher.held_count(), 0);
}

TEST(Utf8StreamTest, EveryScalarValuePassesUnchanged) {
  std::string all;
  for (uint32_t c = 0; c <= 0x10FFFF; c += (c < 0x3000 ? 1 : 61)) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    if (c < 0x80) {
      all.push_back(static_cast<char>(c));
    } else if (c < 0x800) {
      all += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
    } else if (c < 0x10000) {
      all += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3F)),
              static_cast<char>(0x80 | (c & 0x3F))};
    } else {
      all += {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 0x3F)),
              static_cast<char>(0x80 | (c >> 6 & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
    }
  }
  Utf8Stream stream;
  std::string text;
  for (const char c : all) stream.Append(absl::string_view(&c, 1), &text);
  stream.Flush(&text);
  EXPECT_EQ(text, all);
}

}  // namespace
}  // namespace fermata
