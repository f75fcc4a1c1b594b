// Goal: what a loader has read takes no memory for long, whether tensors are made ready alone or three at a time.
// Method: parts of a file are taken, then read, as a loader does; what is resident is asked of the system.
#include "engine/model/released_later.h"

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/model/resident_file_bytes.h"

namespace fermata {
namespace {

constexpr int64_t kPart = 8 << 20;
constexpr int kParts = 7;

void Read(absl::Span<const uint8_t> bytes) {
  uint64_t sum = 0;
  for (const uint8_t byte : bytes) sum += byte;
  ASSERT_EQ(sum, bytes.size() * 'x');
}

TEST(ReleasedLaterTest, ThreeThatAreReadTogetherAreReleasedByTheNext) {
  const std::string path = absl::StrCat(getenv("TEST_TMPDIR"), "/file");
  std::ofstream(path) << std::string(kParts * kPart, 'x');
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto part = [&](int i) { return (*file)->bytes().subspan(i * kPart, kPart); };
  const int64_t before = ResidentFileBytes();
  ReleasedLater released;
  for (const int first : {0, 3}) {
    for (int i = first; i < first + 3; ++i) released.Took(part(i));
    for (int i = first; i < first + 3; ++i) Read(part(i));
    // These three, and of those before them nothing.
    EXPECT_LT(ResidentFileBytes() - before, 3 * kPart + kPart / 2);
  }
  released.Took(part(6));
  EXPECT_LT(ResidentFileBytes() - before, kPart / 2);
  Read(part(0));
}

}  // namespace
}  // namespace fermata
