// Goal: gate, up and SwiGlu in one product are what they are one after the other, to the bit, whatever the number of
// rows and threads and whatever comes between. Method: matrices in 8 bits; what a third matrix makes of the result,
// against another backend that does one operation after the other.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"

namespace fermata::kernels {
namespace {

constexpr int32_t kColumns = 64;
constexpr int32_t kOutputs = 20;

// The three matrices of a feed-forward network.
class Network {
 public:
  Network(int threads, int32_t size, bool float_beside) : size_(size), backend_(CpuBackend::BestOptions(threads)) {
    gate_ = Make(size, kColumns, 1);
    up_ = Make(size, kColumns, 2);
    down_ = Make(kOutputs, size, 3);
    if (!float_beside) return;
    // As if another layer had kept floats.
    const std::vector<float> values(2 * size, 1.0f);
    floats_ = *backend_.Prepare({WeightType::kF32, 2, size, reinterpret_cast<const uint8_t*>(values.data())});
  }

  std::vector<float> Run(const std::vector<float>& x, bool together) {
    const int32_t rows = static_cast<int32_t>(x.size()) / kColumns;
    const std::unique_ptr<Buffer> input = *backend_.Allocate(int64_t{rows} * kColumns);
    const std::unique_ptr<Buffer> gate = *backend_.Allocate(int64_t{rows} * size_);
    const std::unique_ptr<Buffer> up = *backend_.Allocate(int64_t{rows} * size_);
    std::copy(x.begin(), x.end(), CpuBackend::Data(*input));
    if (together) {
      backend_.GatedMatMul({gate_.get(), gate.get()}, {up_.get(), up.get()}, *input, rows);
    } else {
      backend_.MatMul({{gate_.get(), gate.get()}, {up_.get(), up.get()}}, *input, rows);
      backend_.SwiGlu(*up, rows, size_, *gate);
    }
    std::vector<float> result = Down(*gate, rows);
    EXPECT_EQ(Down(*gate, rows), result) << "the same again";
    if (together) {
      // Written again, it is what was written.
      std::fill_n(CpuBackend::Data(*up), int64_t{rows} * size_, 0.5f);
      std::fill_n(CpuBackend::Data(*gate), int64_t{rows} * size_, 0.0f);
      backend_.Add(*up, int64_t{rows} * size_, *gate);
      EXPECT_EQ(Down(*gate, rows), Down(*up, rows));
    }
    return result;
  }

 private:
  std::unique_ptr<Weights> Make(int32_t rows, int32_t columns, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<uint8_t>& bytes = bytes_.emplace_back(rows * columns / 32 * 34);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() & 0x2F);  // scales are sane f16 numbers
    return *backend_.Prepare({WeightType::kQ8_0, rows, columns, bytes.data()});
  }

  std::vector<float> Down(const Buffer& x, int32_t rows) {
    const std::unique_ptr<Buffer> output = *backend_.Allocate(int64_t{rows} * kOutputs);
    backend_.MatMul({{down_.get(), output.get()}}, x, rows);
    const float* data = CpuBackend::Data(*output);
    return std::vector<float>(data, data + int64_t{rows} * kOutputs);
  }

  const int32_t size_;
  CpuBackend backend_;
  std::vector<std::vector<uint8_t>> bytes_;
  std::unique_ptr<Weights> gate_, up_, down_, floats_;
};

class GatedProductTest : public testing::TestWithParam<std::tuple<int, int32_t, bool>> {};

TEST_P(GatedProductTest, IsWhatOneAfterTheOtherGives) {
  const auto [threads, size, float_beside] = GetParam();
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 0.1f);
  Network one(1, size, /*float_beside=*/false);
  Network network(threads, size, float_beside);
  for (const int32_t rows : {1, 2, 8, 9, 17, 32, 33, 48, 50, 200}) {
    std::vector<float> x(int64_t{rows} * kColumns);
    for (float& value : x) value = normal(random);
    EXPECT_EQ(network.Run(x, /*together=*/true), one.Run(x, /*together=*/false)) << rows << " rows";
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GatedProductTest,
                         testing::Combine(testing::Values(1, 2, 3), testing::Values(32, 96, 352),
                                          testing::Values(false, true)));

}  // namespace
}  // namespace fermata::kernels
