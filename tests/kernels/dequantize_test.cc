// Goal: stored weights mean what the GGUF format says.
// Method: random blocks of each quantised type against the values that PyPI's gguf gives, to the bit.

#include "kernels/cpu/dequantize.h"

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"
#include "tests/fakes/golden_file.h"

namespace fermata::kernels {
namespace {

TEST(DequantizeTest, AgreesWithGoldens) {
  const std::map<std::string, WeightType> types = {
      {"Q4_0", WeightType::kQ4_0}, {"Q4_1", WeightType::kQ4_1}, {"Q5_0", WeightType::kQ5_0},
      {"Q5_1", WeightType::kQ5_1}, {"Q8_0", WeightType::kQ8_0}, {"IQ4_NL", WeightType::kIQ4_NL},
      {"Q4_K", WeightType::kQ4_K}, {"Q5_K", WeightType::kQ5_K}, {"Q6_K", WeightType::kQ6_K},
  };
  const std::vector<nlohmann::json> goldens = ReadGoldens("dequantize.jsonl");
  EXPECT_EQ(goldens.size(), types.size());
  for (const nlohmann::json& golden : goldens) {
    const std::string name = golden["type"];
    SCOPED_TRACE(name);
    ASSERT_TRUE(types.contains(name));
    const std::string blocks = absl::HexStringToBytes(golden["blocks"].get<std::string>());
    const std::string bytes = absl::HexStringToBytes(golden["values"].get<std::string>());
    std::vector<float> expected(bytes.size() / sizeof(float));
    std::memcpy(expected.data(), bytes.data(), bytes.size());
    const WeightView view = {types.at(name), /*rows=*/1, static_cast<int64_t>(expected.size()),
                             reinterpret_cast<const uint8_t*>(blocks.data())};
    ASSERT_EQ(view.row_bytes(), static_cast<int64_t>(blocks.size()));
    std::vector<float> actual(expected.size());
    DequantizeRow(view, 0, actual.data());
    EXPECT_EQ(actual, expected);
  }
}

}  // namespace
}  // namespace fermata::kernels
