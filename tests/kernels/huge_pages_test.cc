// Goal: large pages hold what is written, begin where they say, and pieces of an arena share nothing.
// Method: sizes around a page's and a chunk's; every piece written whole and read again after all are written.

#include "kernels/cpu/huge_pages.h"

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace fermata::kernels {
namespace {

TEST(HugePagesTest, AreZeroAndHoldWhatIsWritten) {
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{4096}, (size_t{2} << 20) - 1, size_t{2} << 20, size_t{5} << 20}) {
    HugePages pages(size);
    ASSERT_NE(pages.data(), nullptr);
    EXPECT_EQ(pages.size(), size);
    if (size >= size_t{2} << 20) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(pages.data()) % (2 << 20), 0u);
    }
    if (size == 0) continue;
    EXPECT_EQ(pages.data()[size - 1], std::byte{0});
    std::memset(pages.data(), 1, size);
    const HugePages moved = std::move(pages);
    EXPECT_EQ(moved.data()[size - 1], std::byte{1});
  }
}

TEST(HugePagesTest, WhatTheSystemDoesNotHaveIsNull) {
  EXPECT_EQ(HugePages(size_t{1} << 60).data(), nullptr);
  EXPECT_EQ(HugeArena().Allocate(size_t{1} << 60), nullptr);
}

TEST(HugeArenaTest, PiecesAreAlignedAndApart) {
  HugeArena arena;
  std::vector<std::pair<std::byte*, size_t>> pieces;
  for (const size_t size : {size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{30} << 20, size_t{40} << 20,
                            size_t{70} << 20, size_t{3}}) {
    std::byte* const piece = arena.Allocate(size);
    ASSERT_NE(piece, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(piece) % HugeArena::kAlignment, 0u);
    EXPECT_EQ(piece[0], std::byte{0});
    EXPECT_EQ(piece[size - 1], std::byte{0});
    pieces.emplace_back(piece, size);
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    pieces[i].first[0] = pieces[i].first[pieces[i].second - 1] = static_cast<std::byte>(i + 1);
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_EQ(pieces[i].first[0], static_cast<std::byte>(i + 1));
    EXPECT_EQ(pieces[i].first[pieces[i].second - 1], static_cast<std::byte>(i + 1));
  }
}

}  // namespace
}  // namespace fermata::kernels
