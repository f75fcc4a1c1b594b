// Runs a fuzzer on given files, each as a test case of its own: on its corpus in every run of the tests, and on a crash
// that tools/fuzz found. usage: ..._corpus_test FILE|FOLDER...

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace fermata {
namespace {

class CorpusFile : public testing::Test {
 public:
  explicit CorpusFile(std::string path) : path_(std::move(path)) {}

  void TestBody() override {
    std::ifstream file(path_, std::ios::binary);
    ASSERT_TRUE(file.is_open()) << path_;
    // Of exactly the file's size, so that the address sanitizer sees a read beyond its end.
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const std::vector<uint8_t> input(bytes.begin(), bytes.end());
    EXPECT_EQ(LLVMFuzzerTestOneInput(input.data(), input.size()), 0);
  }

 private:
  const std::string path_;
};

std::vector<std::string> FilesOf(int count, char** arguments) {
  std::vector<std::string> files;
  for (int i = 1; i < count; ++i) {
    std::error_code error;
    if (!std::filesystem::is_directory(arguments[i], error)) {
      files.push_back(arguments[i]);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(arguments[i], error)) {
      files.push_back(entry.path().string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const std::vector<std::string> files = fermata::FilesOf(argc, argv);
  if (files.empty()) {
    fprintf(stderr, "no files to run on. usage: %s FILE|FOLDER...\n", argv[0]);
    return 1;
  }
  for (const std::string& file : files) {
    const std::string name = std::filesystem::path(file).filename().string();
    testing::RegisterTest("Corpus", name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                          [file] { return new fermata::CorpusFile(file); });
  }
  return RUN_ALL_TESTS();
}
