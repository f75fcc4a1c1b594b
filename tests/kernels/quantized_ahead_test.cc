// Goal: products of rows that an operation quantised ahead are those of rows quantised afresh, whatever comes between.
// Method: a matrix in 8 bits; rows that a norm or SwiGlu leaves, multiplied at once, twice, and after each operation
// that writes them again. Against another backend that is given the same rows as they are, to the bit.

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"

namespace fermata::kernels {
namespace {

constexpr int32_t kRows = 5;
constexpr int32_t kColumns = 64;
constexpr int32_t kOutputs = 20;

class QuantizedAheadTest : public testing::TestWithParam<int> {
 protected:
  QuantizedAheadTest() : backend_(CpuBackend::BestOptions(GetParam())), fresh_(CpuBackend::BestOptions(1)) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    matrix_bytes_.resize(kOutputs * kColumns / 32 * 34);
    for (uint8_t& byte : matrix_bytes_) byte = static_cast<uint8_t>(random() & 0x2F);  // scales are sane f16 numbers
    norm_.resize(kColumns);
    for (float& value : norm_) value = normal(random);
    matrix_ = Prepare(backend_);
    fresh_matrix_ = Prepare(fresh_);
    weight_ = *backend_.Prepare({WeightType::kF32, 1, kColumns, reinterpret_cast<const uint8_t*>(norm_.data())});
    for (std::unique_ptr<Buffer>* buffer : {&x_, &y_, &normed_}) {
      *buffer = *backend_.Allocate(kRows * kColumns);
      for (int i = 0; i < kRows * kColumns; ++i) CpuBackend::Data(**buffer)[i] = normal(random);
    }
  }

  std::unique_ptr<Weights> Prepare(CpuBackend& backend) {
    return *backend.Prepare({WeightType::kQ8_0, kOutputs, kColumns, matrix_bytes_.data()});
  }

  static std::vector<float> Multiply(CpuBackend& backend, const Weights& matrix, const Buffer& x) {
    const std::unique_ptr<Buffer> output = *backend.Allocate(kRows * kOutputs);
    backend.MatMul({{&matrix, output.get()}}, x, kRows);
    const float* data = CpuBackend::Data(*output);
    return std::vector<float>(data, data + kRows * kOutputs);
  }

  void ExpectFresh(const Buffer& x, const std::string& what) {
    const std::unique_ptr<Buffer> copy = *fresh_.Allocate(kRows * kColumns);
    std::copy_n(CpuBackend::Data(x), kRows * kColumns, CpuBackend::Data(*copy));
    EXPECT_EQ(Multiply(backend_, *matrix_, x), Multiply(fresh_, *fresh_matrix_, *copy)) << what;
  }

  std::vector<uint8_t> matrix_bytes_;
  std::vector<float> norm_;
  CpuBackend backend_;
  CpuBackend fresh_;
  std::unique_ptr<Weights> matrix_;
  std::unique_ptr<Weights> fresh_matrix_;
  std::unique_ptr<Weights> weight_;
  std::unique_ptr<Buffer> x_;
  std::unique_ptr<Buffer> y_;
  std::unique_ptr<Buffer> normed_;
};

TEST_P(QuantizedAheadTest, RowsQuantisedAheadAreThoseQuantisedAfresh) {
  backend_.RmsNorm(*weight_, 1e-5f, *x_, kRows, *normed_);
  ExpectFresh(*normed_, "a norm's");
  ExpectFresh(*normed_, "the same again");
  backend_.AddRmsNorm(*weight_, 1e-5f, *y_, kRows, *x_, *normed_);
  ExpectFresh(*normed_, "a sum's norm's");
  backend_.SwiGlu(*y_, kRows, kColumns, *normed_);
  ExpectFresh(*normed_, "SwiGlu's");
  backend_.RmsNorm(*weight_, 1e-5f, *x_, kRows, *normed_);
  ExpectFresh(*y_, "another's");
}

TEST_P(QuantizedAheadTest, WhatIsWrittenAfterwardsCounts) {
  const std::vector<int32_t> indices = {4, 3, 2, 1, 0};
  const std::vector<int32_t> tokens = {0, 1, 2, 3, 4};
  const std::pair<const char*, std::function<void()>> writers[] = {
      {"Add", [&] { backend_.Add(*y_, kRows * kColumns, *normed_); }},
      {"AddBias", [&] { backend_.AddBias(*weight_, kRows, *normed_); }},
      {"GatherRows", [&] { backend_.GatherRows(*y_, indices, kColumns, *normed_); }},
      {"Embed", [&] { backend_.Embed(*matrix_, tokens, *normed_); }},
      {"AddRmsNorm", [&] { backend_.AddRmsNorm(*weight_, 1e-5f, *y_, kRows, *normed_, *x_); }},
  };
  for (const auto& [name, write] : writers) {
    backend_.RmsNorm(*weight_, 1e-5f, *x_, kRows, *normed_);
    write();
    ExpectFresh(*normed_, name);
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, QuantizedAheadTest, testing::Values(1, 2, 3));

}  // namespace
}  // namespace fermata::kernels
