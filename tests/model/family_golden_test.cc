// Goal: qwen2 (biases), qwen3 (norms over heads) and llama with Llama 3's rope scaling compute what a reference that
// shares no code computes.
// Method: tiny safetensors folders and float64 logits, both of tests/goldens/families/generate.py, at every position of
// one text; whole and in chunks; as BF16, F16 and F32.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/model/logits_driver.h"

namespace fermata {
namespace {

template <typename T>
std::vector<T> ReadNumbers(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<T> numbers(bytes.size() / sizeof(T));
  std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(T));
  EXPECT_FALSE(numbers.empty()) << "nothing in " << path;
  return numbers;
}

class FamilyGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  // The largest difference of a logit to the reference's.
  static double Difference(bool exact, int32_t chunk) {
    const std::string folder = "tests/goldens/families/" + GetParam();
    kernels::CpuBackendOptions options = kernels::CpuBackend::BestOptions(/*threads=*/2);
    options.exact = exact;
    LogitsDriver driver(folder, options);
    ForcedSequence sequence = driver.Begin(ReadNumbers<int32_t>(folder + "/tokens.bin"), /*first_output=*/0);
    driver.Run(sequence, chunk);
    const std::vector<float> expected = ReadNumbers<float>(folder + "/logits.bin");
    std::vector<float> computed;
    for (const std::vector<float>& row : sequence.logits) computed.insert(computed.end(), row.begin(), row.end());
    EXPECT_EQ(computed.size(), expected.size());
    double difference = 0;
    for (size_t i = 0; i < std::min(computed.size(), expected.size()); ++i) {
      difference = std::fmax(difference, std::fabs(computed[i] - expected[i]));
    }
    return difference;
  }
};

TEST_P(FamilyGoldenTest, TheExactPathGivesTheReferencesLogits) {
  EXPECT_LT(Difference(/*exact=*/true, /*chunk=*/256), 1e-4);
  EXPECT_LT(Difference(/*exact=*/true, /*chunk=*/3), 1e-4);
}

// Float weights are multiplied in float32 on this path too.
TEST_P(FamilyGoldenTest, TheFastPathIsAsNear) {
  EXPECT_LT(Difference(/*exact=*/false, /*chunk=*/256), 1e-3);
  EXPECT_LT(Difference(/*exact=*/false, /*chunk=*/1), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(All, FamilyGoldenTest, testing::Values("qwen2", "qwen3", "llama3"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fermata
