#include "tests/kernels/cuda/twins.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "glog/logging.h"

namespace fermata::kernels {
namespace {

template <typename T>
T Must(absl::StatusOr<T> value) {
  CHECK(value.ok()) << value.status();
  return *std::move(value);
}

}  // namespace

std::vector<float> RandomBf16(int64_t count, float deviation, std::mt19937& random) {
  std::normal_distribution<float> distribution(0.0f, deviation);
  std::vector<float> values(count);
  for (float& value : values) {
    value = distribution(random);
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    bits &= 0xffff0000u;
    std::memcpy(&value, &bits, sizeof(bits));
  }
  return values;
}

uint32_t SeedOf(int argc, char** argv) {
  const uint32_t seed = argc > 1 ? static_cast<uint32_t>(std::strtoul(argv[1], nullptr, 10)) : std::random_device()();
  std::printf("seed %u\n", seed);
  return seed;
}

void Tally::Compare(const std::string& what, absl::Span<const float> actual, absl::Span<const float> expected,
                    double relative, double absolute) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - expected[i]);
    if (difference <= relative * std::abs(expected[i]) + absolute) continue;
    std::printf("FAILED %s at %zu of %zu: %g, not %g\n", what.c_str(), i, expected.size(), actual[i], expected[i]);
    ++failed_;
    return;
  }
  ++passed_;
}

void Tally::Expect(const std::string& what, bool holds) {
  if (!holds) std::printf("FAILED %s\n", what.c_str());
  ++(holds ? passed_ : failed_);
}

int Tally::Finish() const {
  std::printf("%d passed, %d failed\n", passed_, failed_);
  return failed_ == 0 ? 0 : 1;
}

std::unique_ptr<Twins> Twins::Create(const cuda::DeviceOptions& options) {
  absl::StatusOr<std::unique_ptr<CudaBackend>> cuda = CudaBackend::Create(options);
  if (!cuda.ok()) {
    std::printf("skipped: %s\n", std::string(cuda.status().message()).c_str());
    return nullptr;
  }
  return std::unique_ptr<Twins>(new Twins(*std::move(cuda)));
}

Twins::Pair Twins::Make(const std::vector<float>& values, bool floats) {
  const int64_t count = static_cast<int64_t>(values.size());
  Pair pair = {Must(floats ? cpu_.AllocateFloats(count) : cpu_.Allocate(count)),
               Must(floats ? cuda_->AllocateFloats(count) : cuda_->Allocate(count)), count};
  std::copy(values.begin(), values.end(), CpuBackend::Data(*pair.cpu));
  const absl::Status status = cuda_->Write(values, *pair.cuda);
  CHECK(status.ok()) << status;
  return pair;
}

Twins::Pair Twins::MakePoisoned(int64_t count, bool floats) {
  return Make(std::vector<float>(count, std::numeric_limits<float>::quiet_NaN()), floats);
}

Twins::WeightPair Twins::MakeWeights(int64_t rows, int64_t columns, const std::vector<float>& values) {
  WeightPair pair;
  pair.values = values;
  const WeightView view = {WeightType::kF32, rows, columns, reinterpret_cast<const uint8_t*>(pair.values.data())};
  pair.cpu = Must(cpu_.Prepare(view));
  pair.cuda = Must(cuda_->Prepare(view));
  return pair;
}

std::vector<float> Twins::CpuValues(const Pair& pair) const {
  const float* data = CpuBackend::Data(*pair.cpu);
  return std::vector<float>(data, data + pair.count);
}

std::vector<float> Twins::CudaValues(const Pair& pair) {
  std::vector<float> values(pair.count);
  const absl::Status status = cuda_->Read(*pair.cuda, absl::MakeSpan(values));
  CHECK(status.ok()) << status;
  return values;
}

std::vector<float> Twins::Values(Backend& backend, const Buffer& buffer, int64_t count) {
  if (&backend == &cpu_) {
    const float* data = CpuBackend::Data(buffer);
    return std::vector<float>(data, data + count);
  }
  std::vector<float> values(count);
  const absl::Status status = cuda_->Read(buffer, absl::MakeSpan(values));
  CHECK(status.ok()) << status;
  return values;
}

}  // namespace fermata::kernels
