// Files seen as memory: what is given back can be read again, and takes no memory meanwhile.
#include "engine/model/mapped_file.h"

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/model/resident_file_bytes.h"

namespace fermata {
namespace {

constexpr size_t kSize = 32 << 20;

uint64_t Sum(absl::Span<const uint8_t> bytes) {
  uint64_t sum = 0;
  for (const uint8_t byte : bytes) sum += byte;
  return sum;
}

std::string WriteFile(size_t size) {
  const std::string path = absl::StrCat(getenv("TEST_TMPDIR"), "/file");
  std::ofstream(path) << std::string(size, 'x');
  return path;
}

TEST(MappedFileTest, WhatIsReleasedTakesNoMemoryAndCanBeReadAgain) {
  const auto file = MappedFile::Open(WriteFile(kSize));
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Span<const uint8_t> bytes = (*file)->bytes();
  ASSERT_EQ(Sum(bytes), kSize * 'x');
  const int64_t read = ResidentFileBytes();
  // Neither end lies at a page's border.
  MappedFile::Release(bytes.subspan(100, kSize - 201));
  EXPECT_LT(ResidentFileBytes(), read - static_cast<int64_t>(kSize) / 2);
  EXPECT_EQ(Sum(bytes), kSize * 'x');
}

TEST(MappedFileTest, LessThanAPageIsKept) {
  const auto file = MappedFile::Open(WriteFile(5000));
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Span<const uint8_t> bytes = (*file)->bytes();
  MappedFile::Release(bytes.subspan(1, 4000));
  MappedFile::Release(bytes.subspan(5000, 0));
  EXPECT_EQ(Sum(bytes), 5000u * 'x');
}

TEST(MappedFileTest, AFileThatIsNotThereIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(MappedFile::Open(absl::StrCat(getenv("TEST_TMPDIR"), "/none")).status()));
}

}  // namespace
}  // namespace fermata
