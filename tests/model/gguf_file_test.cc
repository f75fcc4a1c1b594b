// Goal: a GGUF file is read right, and whatever a file holds, reading it ends in a value or a clear error.
// Method: files made here: whole ones, ones cut at every length, ones with single bytes changed at random, and ones
// broken in a particular way.

#include "engine/model/gguf_file.h"

#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/gguf_writer.h"

namespace fermata {
namespace {

using testing::HasSubstr;

GgufWriter SmallFile() {
  GgufWriter writer;
  writer.AddString("general.name", "small");
  writer.AddInt("answer", 42);
  writer.AddFloat("pi", 3.5f);
  writer.AddBool("yes", true);
  writer.AddStrings("words", {"a", "bc"});
  writer.AddInts("numbers", {-1, 7});
  writer.AddTensor("first", TensorType::kF32, {2, 3}, std::string(24, 'x'));
  writer.AddTensor("second", TensorType::kQ4_1, {32}, std::string(20, 'y'));
  return writer;
}

absl::Status StatusOf(const std::string& bytes) { return GgufFile::Open(WriteTestFile("broken.gguf", bytes)).status(); }

TEST(GgufFileTest, AWholeFileIsReadBack) {
  const absl::StatusOr<std::unique_ptr<GgufFile>> file =
      GgufFile::Open(WriteTestFile("small.gguf", SmallFile().Finish()));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*(*file)->GetString("general.name"), "small");
  EXPECT_EQ(*(*file)->GetInt("answer"), 42);
  EXPECT_EQ(*(*file)->GetFloat("pi"), 3.5);
  EXPECT_TRUE(*(*file)->GetBool("yes"));
  EXPECT_EQ(*(*file)->FindStrings("words"), (std::vector<std::string>{"a", "bc"}));
  EXPECT_EQ(*(*file)->FindInts("numbers"), (std::vector<int64_t>{-1, 7}));
  ASSERT_EQ((*file)->tensors().size(), 2u);
  const GgufTensor* second = (*file)->FindTensor("second");
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(second->type, TensorType::kQ4_1);
  EXPECT_EQ(second->shape, std::vector<int64_t>{32});
  EXPECT_EQ(std::string(second->data.begin(), second->data.end()), std::string(20, 'y'));
  EXPECT_EQ((*file)->FindTensor("third"), nullptr);
}

TEST(GgufFileTest, AMissingKeyAndAKeyOfAnotherKindAreToldApart) {
  const absl::StatusOr<std::unique_ptr<GgufFile>> file =
      GgufFile::Open(WriteTestFile("kinds.gguf", SmallFile().Finish()));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->GetInt("question").status().code(), absl::StatusCode::kNotFound);
  const absl::Status other = (*file)->GetInt("pi").status();
  EXPECT_EQ(other.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(other.message()), HasSubstr("\"pi\" is not an integer"));
}

TEST(GgufFileTest, AFileCutAnywhereIsRefused) {
  const std::string bytes = SmallFile().Finish();
  // What is missing at the very end is padding that no tensor needs.
  const size_t needed = bytes.size() - 12;
  for (size_t size = 0; size < needed; ++size) {
    const absl::Status status = StatusOf(bytes.substr(0, size));
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << "cut at " << size << ": " << status;
    ASSERT_THAT(std::string(status.message()), HasSubstr("broken.gguf")) << "cut at " << size;
  }
  EXPECT_TRUE(StatusOf(bytes.substr(0, needed)).ok());
}

TEST(GgufFileTest, ChangedBytesNeverCrash) {
  const std::string bytes = SmallFile().Finish();
  std::mt19937 random(1);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string changed = bytes;
    for (int n = 0; n < 1 + i % 3; ++n) changed[random() % changed.size()] = static_cast<char>(random());
    if (!StatusOf(changed).ok()) ++refused;
  }
  EXPECT_GT(refused, 0);
}

TEST(GgufFileTest, WhatIsNotGgufIsSaidToBeNone) {
  const absl::Status text = StatusOf("# Readme\n\nThis is not a model.\n");
  EXPECT_EQ(text.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(text.message()), HasSubstr("not a GGUF file: it begins with \"# Re\""));
  EXPECT_EQ(StatusOf("").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GgufFile::Open("no/such/file.gguf").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(GgufFile::Open(".").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(GgufFileTest, OtherVersionsAndByteOrdersAreNotServed) {
  std::string bytes = SmallFile().Finish();
  bytes[4] = 2;
  EXPECT_EQ(StatusOf(bytes).code(), absl::StatusCode::kUnimplemented);
  bytes[4] = 0;
  bytes[7] = 3;
  const absl::Status big_endian = StatusOf(bytes);
  EXPECT_EQ(big_endian.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(big_endian.message()), HasSubstr("big-endian"));
}

TEST(GgufFileTest, AbsurdCountsAreNotBelieved) {
  std::string bytes = SmallFile().Finish();
  for (const int offset : {8, 16}) {  // of tensors, of values
    std::string absurd = bytes;
    absurd.replace(offset, 8, std::string(7, '\xFF') + '\x7F');
    EXPECT_EQ(StatusOf(absurd).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(GgufFileTest, DuplicatesAreRefused) {
  GgufWriter keys = SmallFile();
  keys.AddInt("answer", 43);
  EXPECT_THAT(std::string(StatusOf(keys.Finish()).message()), HasSubstr("\"answer\" stands twice"));
  GgufWriter tensors = SmallFile();
  tensors.AddTensor("first", TensorType::kF32, {1}, std::string(4, 'z'));
  EXPECT_THAT(std::string(StatusOf(tensors.Finish()).message()), HasSubstr("\"first\" stands twice"));
}

TEST(GgufFileTest, TensorsMustFitTheirTypeAndTheFile) {
  GgufWriter ragged;
  ragged.AddTensor("ragged", TensorType::kQ4_1, {33}, std::string(40, 'r'));
  EXPECT_THAT(std::string(StatusOf(ragged.Finish()).message()), HasSubstr("multiple of 32"));
  GgufWriter large;
  large.AddTensor("large", TensorType::kF32, {int64_t{1} << 40, int64_t{1} << 40}, "");
  EXPECT_EQ(StatusOf(large.Finish()).code(), absl::StatusCode::kInvalidArgument);
  GgufWriter unknown;
  unknown.AddTensor("unknown", static_cast<TensorType>(99), {4}, std::string(16, 'u'));
  EXPECT_EQ(StatusOf(unknown.Finish()).code(), absl::StatusCode::kUnimplemented);
  GgufWriter alignment = SmallFile();
  alignment.AddInt("general.alignment", 3);
  EXPECT_THAT(std::string(StatusOf(alignment.Finish()).message()), HasSubstr("general.alignment"));
}

}  // namespace
}  // namespace fermata
