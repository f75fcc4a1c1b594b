// Goal: a fused layer gives what its operations give one by one, leaves its counters as they were, and gives the same
// bits each time.
// Method: the plain sums in double, over fresh random operands that are exact in bfloat16, with sizes that fill no box
// or tile; results poisoned first, and what lies between their rows checked to be left alone. Then the shapes of Llama
// 3.1 8B against the kernels for single operations.
//
//   fused_layer_check [seed [few]]: little, for sanitizers

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/fused_layer.h"
#include "kernels/cuda/row_kernels.h"
#include "kernels/cuda/warpgroup_product.h"
#include "tests/kernels/cuda/device_values.h"
#include "tests/kernels/cuda/twins.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int32_t kPadding = 8;  // elements between rows
constexpr float kEpsilon = 1e-5f;

double Round(double value) { return Widen(Narrow(static_cast<float>(value))); }

struct Sizes {
  int32_t embedding;
  int32_t queries;
  int32_t feed_forward;
  int32_t inputs;  // 0: the last layer
};

// [size][columns], whose sums are about as large as what they multiply.
struct Matrix {
  int32_t size;
  int32_t columns;
  std::vector<float> values;
  CudaMemory device;

  Matrix(int32_t outputs, int32_t inputs, std::mt19937& random)
      : size(outputs),
        columns(inputs),
        values(RandomBf16(int64_t{outputs} * inputs, 1.0f / std::sqrt(static_cast<float>(inputs)), random)) {
    device = Upload(Narrowed(values));
  }

  FusedMatrix Operand() const { return {device.as<uint16_t>(), size, columns}; }

  double Sum(int32_t output, const double* x) const {
    double total = 0;
    for (int32_t i = 0; i < columns; ++i) total += static_cast<double>(values[int64_t{output} * columns + i]) * x[i];
    return total;
  }
};

// Rows of `width`, `stride` apart; between them, and all of it if poisoned, NaN.
struct Rows {
  int32_t width;
  int32_t stride;
  std::vector<uint16_t> bits;
  CudaMemory device;

  Rows(int32_t rows, int32_t columns, int32_t padding) : width(columns), stride(columns + padding) {
    bits.assign(static_cast<size_t>(rows) * stride, 0xffff);
  }
  void Fill(const std::vector<float>& values) {
    for (size_t i = 0; i < values.size(); ++i) bits[i / width * stride + i % width] = Narrow(values[i]);
  }
  void Send() { device = Upload(bits); }
};

std::vector<float> Values(const Rows& rows, bool* clean) {
  const std::vector<uint16_t> bits = Download<uint16_t>(rows.device);
  std::vector<float> values;
  *clean = true;
  for (size_t i = 0; i < bits.size(); ++i) {
    if (static_cast<int32_t>(i % rows.stride) < rows.width) {
      values.push_back(Widen(bits[i]));
    } else {
      *clean = *clean && bits[i] == 0xffff;
    }
  }
  return values;
}

// What the layer is computed from that is the same for all rows.
struct Weights {
  Matrix attention_output;
  Matrix gate_up;
  Matrix down;
  Matrix next;
  std::vector<float> norms[2];
  CudaMemory device_norms[2];

  Weights(const Sizes& sizes, std::mt19937& random)
      : attention_output(sizes.embedding, sizes.queries, random),
        gate_up(2 * sizes.feed_forward, sizes.embedding, random),
        down(sizes.embedding, sizes.feed_forward, random),
        next(sizes.inputs > 0 ? sizes.inputs : 8, sizes.embedding, random) {
    for (int i = 0; i < 2; ++i) {
      norms[i] = RandomBf16(sizes.embedding, 1.0f, random);
      device_norms[i] = Upload(norms[i]);
    }
  }
};

// Partial sums, which are NaN, and counters, which are zeros.
struct Scratch {
  CudaMemory partials;
  CudaMemory tickets;

  explicit Scratch(FusedLayer& layer)
      : partials(Upload(std::vector<uint32_t>(static_cast<size_t>(FusedLayerPartialFloats(layer)), 0xffffffffu))),
        tickets(Upload(std::vector<uint32_t>(kFusedLayerTickets, 0))) {
    layer.partials = partials.as<float>();
    layer.tickets = tickets.as<uint32_t>();
  }
  bool IsLeftClean() const {
    return Download<uint32_t>(tickets) == std::vector<uint32_t>(static_cast<size_t>(kFusedLayerTickets), 0);
  }
};

void Launch(const FusedLayer& layer, const std::string& what) {
  Must(LaunchFusedLayer(layer, /*stream=*/nullptr), what);
  Must(cudaDeviceSynchronize(), what);
}

// What comes out, row after row, as plain sums have it.
struct Expected {
  std::vector<float> hidden;
  std::vector<float> gated;
  std::vector<float> inputs;

  void AddRow(const Weights& weights, const Sizes& sizes, const float* attended, const float* before) {
    std::vector<double> h(before, before + sizes.embedding);
    Accumulate(weights.attention_output, std::vector<double>(attended, attended + sizes.queries), &h);
    std::vector<double> x = Normalized(h, weights.norms[0]);
    std::vector<double> g;
    for (int32_t i = 0; i < sizes.feed_forward; ++i) {
      const double gate = Round(weights.gate_up.Sum(i, x.data()));
      const double up = Round(weights.gate_up.Sum(sizes.feed_forward + i, x.data()));
      g.push_back(Round(gate / (1 + std::exp(-gate)) * up));
    }
    Accumulate(weights.down, g, &h);
    hidden.insert(hidden.end(), h.begin(), h.end());
    gated.insert(gated.end(), g.begin(), g.end());
    x = Normalized(h, weights.norms[1]);
    for (int32_t i = 0; i < sizes.inputs; ++i) inputs.push_back(static_cast<float>(weights.next.Sum(i, x.data())));
  }

 private:
  static void Accumulate(const Matrix& matrix, const std::vector<double>& x, std::vector<double>* h) {
    for (int32_t i = 0; i < matrix.size; ++i) (*h)[i] = Round((*h)[i] + matrix.Sum(i, x.data()));
  }

  static std::vector<double> Normalized(const std::vector<double>& h, const std::vector<float>& weights) {
    double squares = 0;
    for (const double value : h) squares += value * value;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(h.size()) + kEpsilon);
    std::vector<double> result;
    for (size_t i = 0; i < h.size(); ++i) result.push_back(Round(h[i] * scale * weights[i]));
    return result;
  }
};

// Llama 3.1 8B's shapes, of noise.
class LargeLayer {
 public:
  explicit LargeLayer(int32_t rows) : rows_(rows) {}

  // By the kernels for single operations: hidden and inputs.
  void OneByOne() {
    Multiply(o_, kEmbedding, kEmbedding, attention_, kEmbedding, delta_, kEmbedding, false);
    Norm();
    Multiply(up_, kFeedForward, kEmbedding, normed_, kEmbedding, gated_, 2 * kFeedForward, true);
    Multiply(down_, kEmbedding, kFeedForward, gated_, 2 * kFeedForward, delta_, kEmbedding, false);
    Norm();
    Multiply(qkv_, kInputs, kEmbedding, normed_, kEmbedding, other_inputs_, kInputs, false);
    Must(cudaDeviceSynchronize(), "one by one");
  }

  void Fused() {
    FusedLayer layer;
    layer.rows = rows_;
    layer.attention_output = {o_.as<uint16_t>(), kEmbedding, kEmbedding};
    layer.gate_up = {up_.as<uint16_t>(), 2 * kFeedForward, kEmbedding};
    layer.down = {down_.as<uint16_t>(), kEmbedding, kFeedForward};
    layer.next_inputs = {qkv_.as<uint16_t>(), kInputs, kEmbedding};
    layer.feed_forward_norm = norm_.as<float>();
    layer.next_norm = norm_.as<float>();
    layer.epsilon = kEpsilon;
    layer.attention = attention_.as<uint16_t>();
    layer.attention_stride = kEmbedding;
    layer.hidden = hidden_.as<uint16_t>();
    layer.normed = normed_.as<uint16_t>();
    layer.gated = gated_.as<uint16_t>();
    layer.gated_stride = 2 * kFeedForward;
    layer.inputs = inputs_.as<uint16_t>();
    layer.inputs_stride = kInputs;
    const Scratch scratch(layer);
    Launch(layer, "the large layer");
  }

  std::vector<float> hidden(bool fused) const { return Widened(fused ? hidden_ : other_hidden_); }
  std::vector<float> inputs(bool fused) const { return Widened(fused ? inputs_ : other_inputs_); }

 private:
  static constexpr int32_t kEmbedding = 4096;
  static constexpr int32_t kFeedForward = 14336;
  static constexpr int32_t kInputs = 6144;

  static CudaMemory Noise(int64_t count) {
    CudaMemory memory = Allocate(count * 2);
    Must(FillWithNoise(count, memory.as<uint16_t>(), nullptr), "noise");
    return memory;
  }

  static std::vector<float> Widened(const CudaMemory& memory) {
    std::vector<float> values;
    for (const uint16_t bits : Download<uint16_t>(memory)) values.push_back(Widen(bits));
    return values;
  }

  void Multiply(const CudaMemory& weights, int32_t size, int32_t columns, const CudaMemory& x, int64_t x_stride,
                const CudaMemory& output, int64_t stride, bool gated) const {
    WarpgroupOperands operands = {weights.as<uint16_t>(), size,  columns, x.as<uint16_t>(), x_stride, rows_,
                                  output.as<void>(),      stride};
    operands.gated = gated;
    Must(WarpgroupProduct(operands, WarpgroupPlans(operands)[0], nullptr), "product");
  }

  void Norm() const {
    Must(RmsNorm(delta_.as<uint16_t>(), norm_.as<float>(), kEpsilon, rows_, kEmbedding, {},
                 other_hidden_.as<uint16_t>(), normed_.as<uint16_t>(), nullptr),
         "norm");
  }

  const int32_t rows_;
  const CudaMemory o_ = Noise(int64_t{kEmbedding} * kEmbedding);
  const CudaMemory up_ = Noise(int64_t{2} * kFeedForward * kEmbedding);
  const CudaMemory down_ = Noise(int64_t{kFeedForward} * kEmbedding);
  const CudaMemory qkv_ = Noise(int64_t{kInputs} * kEmbedding);
  const CudaMemory norm_ = Upload(std::vector<float>(kEmbedding, 0.01f));
  const CudaMemory attention_ = Noise(rows_ * kEmbedding);
  const CudaMemory hidden_ = Noise(rows_ * kEmbedding);
  const CudaMemory other_hidden_ = Noise(rows_ * kEmbedding);
  const CudaMemory normed_ = Noise(rows_ * kEmbedding);
  const CudaMemory delta_ = Noise(rows_ * kEmbedding);
  const CudaMemory gated_ = Noise(rows_ * 2 * kFeedForward);
  const CudaMemory inputs_ = Noise(rows_ * kInputs);
  const CudaMemory other_inputs_ = Noise(rows_ * kInputs);
};

class FusedLayerCheck {
 public:
  explicit FusedLayerCheck(uint32_t seed) : random_(seed) {}

  void Layers(const Sizes& sizes, const std::vector<int32_t>& row_counts) {
    const Weights weights(sizes, random_);
    for (const int32_t rows : row_counts) Layer(sizes, weights, rows);
  }

  // Against the same operations one by one.
  void Large(int32_t rows) {
    LargeLayer layer(rows);
    layer.OneByOne();
    layer.Fused();
    const std::string what = absl::StrCat("the large layer of ", rows, " rows: ");
    Near(what + "hidden", layer.hidden(true), layer.hidden(false));
    Near(what + "inputs", layer.inputs(true), layer.inputs(false));
  }

  Tally tally;

 private:
  void Layer(const Sizes& sizes, const Weights& weights, int32_t rows) {
    const std::string what = absl::StrCat(rows, " rows, ", sizes.queries, " -> ", sizes.embedding, " -> ",
                                          sizes.feed_forward, " -> ", sizes.inputs);
    Rows attention(rows, sizes.queries, kPadding), hidden(rows, sizes.embedding, 0), normed(rows, sizes.embedding, 0),
        gated(rows, sizes.feed_forward, kPadding), inputs(rows, weights.next.size, kPadding);
    const std::vector<float> attended = RandomBf16(int64_t{rows} * sizes.queries, 1.0f, random_);
    const std::vector<float> before = RandomBf16(int64_t{rows} * sizes.embedding, 1.0f, random_);
    attention.Fill(attended);
    hidden.Fill(before);
    for (Rows* each : {&attention, &hidden, &normed, &gated, &inputs}) each->Send();
    FusedLayer layer;
    layer.rows = rows;
    layer.attention_output = weights.attention_output.Operand();
    layer.gate_up = weights.gate_up.Operand();
    layer.down = weights.down.Operand();
    layer.feed_forward_norm = weights.device_norms[0].as<float>();
    layer.epsilon = kEpsilon;
    layer.attention = attention.device.as<uint16_t>();
    layer.attention_stride = attention.stride;
    layer.hidden = hidden.device.as<uint16_t>();
    layer.normed = normed.device.as<uint16_t>();
    layer.gated = gated.device.as<uint16_t>();
    layer.gated_stride = gated.stride;
    if (sizes.inputs > 0) {
      layer.next_norm = weights.device_norms[1].as<float>();
      layer.next_inputs = weights.next.Operand();
      layer.inputs = inputs.device.as<uint16_t>();
      layer.inputs_stride = inputs.stride;
    }
    tally.Expect(what + ": is served", ServesFusedLayer(layer));
    const Scratch scratch(layer);
    Launch(layer, what);
    tally.Expect(what + ": zeros are left", scratch.IsLeftClean());
    Expected expected;
    for (int64_t r = 0; r < rows; ++r) {
      expected.AddRow(weights, sizes, &attended[r * sizes.queries], &before[r * sizes.embedding]);
    }
    bool clean = true;
    Near(what + ": hidden", Values(hidden, &clean), expected.hidden);
    Near(what + ": gated", Values(gated, &clean), expected.gated);
    tally.Expect(what + ": between the gated rows", clean);
    const std::vector<float> first = Values(inputs, &clean);
    tally.Expect(what + ": between the inputs", clean);
    if (sizes.inputs == 0) return;
    Near(what + ": inputs", first, expected.inputs);
    // Again from the same beginning.
    for (int again = 0; again < 3; ++again) {
      hidden.Send();
      layer.hidden = hidden.device.as<uint16_t>();
      Launch(layer, what);
      tally.Expect(absl::StrCat(what, ": the same bits"), Values(inputs, &clean) == first);
    }
  }

  // |actual - expected| / |expected| is what some roundings to bfloat16 make of it, and no element is further off than
  // a few of them can bring it.
  void Near(const std::string& what, const std::vector<float>& actual, const std::vector<float>& expected) {
    double difference = 0, size = 0, most = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double off = std::isfinite(actual[i]) ? static_cast<double>(actual[i]) - expected[i] : 1e9;
      difference += off * off;
      size += static_cast<double>(expected[i]) * expected[i];
      most = std::max(most, std::abs(off));
    }
    const double error = std::sqrt(difference / size);
    const double largest = most / std::sqrt(size / static_cast<double>(expected.size()));
    tally.Expect(absl::StrCat(what, ": off by ", error, ", at most ", largest), error < 0.015 && largest < 0.4);
  }

  std::mt19937 random_;
};

int Run(uint32_t seed, bool few) {
  if (Twins::Create() == nullptr) return 0;
  FusedLayerCheck check(seed);
  if (few) {
    check.Layers({200, 72, 136, 328}, {1, 17, 65});
    check.Layers({72, 136, 200, 0}, {33});
    return check.tally.Finish();
  }
  const std::vector<int32_t> rows = {1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 127, 128};
  check.Layers({192, 256, 520, 384}, rows);
  check.Layers({8, 8, 8, 8}, rows);
  check.Layers({136, 72, 1032, 0}, rows);
  check.Layers({576, 576, 1536, 960}, {1, 16, 40, 128});
  check.Layers({2048, 2048, 5632, 2560}, {3});
  check.Layers({8192, 64, 64, 72}, {1, 70});
  for (const int32_t count : {1, 16, 17, 64, 128}) check.Large(count);
  return check.tally.Finish();
}

}  // namespace
}  // namespace fermata::kernels::cuda

int main(int argc, char** argv) {
  const uint32_t seed = fermata::kernels::SeedOf(argc, argv);
  return fermata::kernels::cuda::Run(seed, argc > 2 && std::string(argv[2]) == "few");
}
