// Goal: each operation of the CUDA back end gives what the exact CPU back end gives.
// Method: fresh random inputs, exact in bfloat16, over awkward shapes; outputs poisoned first. An operation that rounds
// its result once may be off by 2^-8 of it (bfloat16 has 8 bits); sums add what float32 may lose over their length, and
// attention the rounding of its weights.
//
//   kernel_check [seed [portable | invariant] [few]]: without Hopper's attention; batch-invariant, where rows alone and
//   in company are compared too; little, for sanitizers

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "tests/kernels/cuda/attention_check.h"
#include "tests/kernels/cuda/twins.h"

namespace fermata::kernels {
namespace {

constexpr double kRounding = 1.0 / 256;
constexpr int32_t kBlockTokens = 16;

class KernelCheck {
 public:
  KernelCheck(Twins& twins, uint32_t seed) : twins_(twins), random_(seed) {}

  void Rows(int32_t rows, int32_t size) {
    const std::string shape = absl::StrCat(rows, " x ", size);
    const Twins::Pair x = Random(int64_t{rows} * size);
    const Twins::Pair y = Random(int64_t{rows} * size);
    const Twins::WeightPair weight = twins_.MakeWeights(1, size, RandomBf16(size, 1.0f, random_));
    const Twins::Pair normed = twins_.MakePoisoned(x.count);
    twins_.Both([&](Backend& b, auto at) { b.RmsNorm(*at(weight), 1e-5f, *at(x), rows, *at(normed)); });
    Compare("RmsNorm " + shape, normed, kRounding, 1e-6);
    twins_.Both([&](Backend& b, auto at) { b.AddBias(*at(weight), rows, *at(x)); });
    Compare("AddBias " + shape, x, kRounding, 1e-6);
    twins_.Both([&](Backend& b, auto at) { b.Add(*at(y), x.count, *at(x)); });
    Compare("Add " + shape, x, 2 * kRounding, 0.03);  // x was rounded before: the sum may cancel
    const Twins::Pair gate = Random(x.count);
    twins_.Both([&](Backend& b, auto at) { b.SwiGlu(*at(y), rows, size, *at(gate)); });
    Compare("SwiGlu " + shape, gate, kRounding, 1e-6);
    const Twins::Pair sum = Random(x.count);
    const Twins::Pair sum_normed = twins_.MakePoisoned(x.count);
    twins_.Both(
        [&](Backend& b, auto at) { b.AddRmsNorm(*at(weight), 1e-5f, *at(y), rows, *at(sum), *at(sum_normed)); });
    Compare("AddRmsNorm's sum " + shape, sum, kRounding, 1e-6);
    Compare("AddRmsNorm " + shape, sum_normed, 3 * kRounding, 1e-6);
    Gather(rows, size);
  }

  void Product(int32_t rows, int32_t columns, const std::vector<int32_t>& sizes, bool floats) {
    const Twins::Pair x = Random(int64_t{rows} * columns);
    std::vector<Twins::WeightPair> weights;
    std::vector<Twins::Pair> outputs;
    std::vector<Backend::Product> on_cpu, on_cuda;
    for (const int32_t size : sizes) {
      weights.push_back(twins_.MakeWeights(size, columns, RandomBf16(int64_t{size} * columns, 0.1f, random_)));
      outputs.push_back(twins_.MakePoisoned(int64_t{rows} * size, floats));
    }
    for (size_t i = 0; i < sizes.size(); ++i) {
      on_cpu.push_back({weights[i].cpu.get(), outputs[i].cpu.get()});
      on_cuda.push_back({weights[i].cuda.get(), outputs[i].cuda.get()});
    }
    twins_.cpu().MatMul(on_cpu, *x.cpu, rows);
    twins_.cuda().MatMul(on_cuda, *x.cuda, rows);
    for (size_t i = 0; i < sizes.size(); ++i) {
      Compare(absl::StrCat("MatMul ", rows, " x ", columns, " -> ", sizes[i], floats ? " floats" : ""), outputs[i],
              floats ? 1e-5 : kRounding, 2e-6 * std::sqrt(columns) * 4);
    }
  }

  // Products of matrices that were made ready together, in buffers that lie together; then all that is done to those.
  void Together(int32_t rows, int32_t columns, int32_t head_size, int32_t heads) {
    const Twins::Pair x = Random(int64_t{rows} * columns);
    const std::vector<int64_t> sizes = {int64_t{heads} * head_size, int64_t{heads} * head_size, 8};
    std::vector<std::vector<float>> values;
    for (const int64_t size : sizes) values.push_back(RandomBf16(size * columns, 0.1f, random_));
    const Twins::WeightPair norm = twins_.MakeWeights(1, head_size, RandomBf16(head_size, 1.0f, random_));
    const Twins::WeightPair bias = twins_.MakeWeights(1, heads * head_size, RandomBf16(sizes[0], 1.0f, random_));
    std::vector<std::vector<float>> expected;
    for (Backend* backend : twins_.Backends()) {
      std::vector<WeightView> views;
      for (size_t i = 0; i < sizes.size(); ++i) {
        views.push_back({WeightType::kF32, sizes[i], columns, reinterpret_cast<const uint8_t*>(values[i].data())});
      }
      auto weights = backend->PrepareTogether(views);
      auto outputs = backend->AllocateTogether(rows, sizes);
      Expect("PrepareTogether", weights.ok());
      Expect("AllocateTogether", outputs.ok());
      std::vector<Backend::Product> products;
      for (size_t i = 0; i < sizes.size(); ++i) products.push_back({(*weights)[i].get(), (*outputs)[i].get()});
      const bool on_cpu = backend == &twins_.cpu();
      backend->MatMul(products, on_cpu ? *x.cpu : *x.cuda, rows);
      backend->AddBias(on_cpu ? *bias.cpu : *bias.cuda, rows, *(*outputs)[0]);
      backend->RmsNorm(on_cpu ? *norm.cpu : *norm.cuda, 1e-5f, *(*outputs)[1], rows * heads, *(*outputs)[1]);
      backend->SwiGlu(*(*outputs)[1], rows, heads * head_size, *(*outputs)[0]);
      for (size_t i = 0; i < sizes.size(); ++i) {
        std::vector<float> result = twins_.Values(*backend, *(*outputs)[i], rows * sizes[i]);
        if (on_cpu) {
          expected.push_back(std::move(result));
        } else {
          tally.Compare(absl::StrCat("Together ", rows, " x ", columns, ", output ", i), result, expected[i], 0.04,
                        0.08);
        }
      }
    }
  }

  // Two matrices made ready together, of which one gates the other.
  void Gated(int32_t rows, int32_t columns, int32_t size) {
    const Twins::Pair x = Random(int64_t{rows} * columns);
    std::vector<float> gate = RandomBf16(int64_t{size} * columns, 0.1f, random_);
    std::vector<float> up = RandomBf16(int64_t{size} * columns, 0.1f, random_);
    std::vector<float> expected;
    for (Backend* backend : twins_.Backends()) {
      std::vector<WeightView> views;
      for (const std::vector<float>* values : {&gate, &up}) {
        views.push_back({WeightType::kF32, size, columns, reinterpret_cast<const uint8_t*>(values->data())});
      }
      auto weights = backend->PrepareTogether(views);
      auto outputs = backend->AllocateTogether(rows, {size, size});
      Expect("PrepareTogether", weights.ok());
      Expect("AllocateTogether", outputs.ok());
      backend->GatedMatMul({(*weights)[0].get(), (*outputs)[0].get()}, {(*weights)[1].get(), (*outputs)[1].get()},
                           backend == &twins_.cpu() ? *x.cpu : *x.cuda, rows);
      std::vector<float> result = twins_.Values(*backend, *(*outputs)[0], int64_t{rows} * size);
      if (backend == &twins_.cpu()) {
        expected = std::move(result);
      } else {
        tally.Compare(absl::StrCat("GatedMatMul ", rows, " x ", columns, " -> ", size), result, expected, 0.03, 0.03);
      }
    }
  }

  // A product that is added to rows, whose norm another product takes.
  void Chain(int32_t rows, int32_t inner, int32_t size, int32_t outputs) {
    const std::string shape = absl::StrCat(rows, " x ", inner, " -> ", size, " -> ", outputs);
    const Twins::Pair x = Random(int64_t{rows} * inner);
    const Twins::Pair sum = Random(int64_t{rows} * size);
    const Twins::WeightPair first = twins_.MakeWeights(size, inner, RandomBf16(int64_t{size} * inner, 0.1f, random_));
    const Twins::WeightPair second =
        twins_.MakeWeights(outputs, size, RandomBf16(int64_t{outputs} * size, 0.1f, random_));
    const Twins::WeightPair norm = twins_.MakeWeights(1, size, RandomBf16(size, 1.0f, random_));
    const Twins::Pair delta = twins_.MakePoisoned(sum.count);
    const Twins::Pair normed = twins_.MakePoisoned(sum.count);
    const Twins::Pair result = twins_.MakePoisoned(int64_t{rows} * outputs);
    twins_.Both([&](Backend& b, auto at) {
      b.MatMul({{at(first), at(delta)}}, *at(x), rows);
      b.AddRmsNorm(*at(norm), 1e-5f, *at(delta), rows, *at(sum), *at(normed));
      b.MatMul({{at(second), at(result)}}, *at(normed), rows);
    });
    Compare("Chain's sum " + shape, sum, 2 * kRounding, 0.03);
    Compare("Chain " + shape, result, 0.03, 0.02 + 0.003 * std::sqrt(size));
    // What the second product need not have: another one asks for it.
    const Twins::Pair again = twins_.MakePoisoned(sum.count);
    twins_.Both([&](Backend& b, auto at) {
      b.MatMul({{at(first), at(delta)}}, *at(x), rows);
      b.AddRmsNorm(*at(norm), 1e-5f, *at(delta), rows, *at(sum), *at(again));
    });
    Compare("Chain's norm " + shape, again, 4 * kRounding, 0.03);
  }

  void DrawTokens(int32_t rows, int32_t size) {
    std::vector<float> logits = RandomBf16(int64_t{rows} * size, 3.0f, random_);
    std::vector<Backend::Draw> draws;
    for (int32_t r = 0; r < rows; ++r) {
      draws.push_back(
          {std::uniform_real_distribution<double>()(random_), r % 3 == 0 ? 0.0f : 0.3f * static_cast<float>(r)});
    }
    if (rows > 4) logits[int64_t{4} * size + size / 2] = std::nanf("");
    const Twins::Pair pair = twins_.Make(logits, /*floats=*/true);
    for (const int32_t first : {0, rows / 2}) {
      const auto drawn = twins_.cuda().DrawTokens(*pair.cuda, first, size, absl::MakeConstSpan(draws).subspan(first));
      Expect("DrawTokens", drawn.ok());
      for (int32_t r = first; r < rows && drawn.ok(); ++r) {
        const float* row = &logits[int64_t{r} * size];
        const bool right = r == 4 ? (*drawn)[r - first] == -1 : IsDrawn(row, size, draws[r], (*drawn)[r - first]);
        Expect(absl::StrCat("DrawTokens ", size, ", row ", r, " gave ", (*drawn)[r - first]), right);
      }
    }
  }

  // A block goes to the host, is overwritten on the device, and comes back into another one: the same bits.
  void KvCopies() {
    CudaBackend& cuda = twins_.cuda();
    const KvShape shape = {8, kBlockTokens, 3, 2, 64};
    Expect("AllocateKv", cuda.AllocateKv(shape).ok());
    const int64_t bytes = cuda.kv_block_bytes();
    Expect("kv_block_bytes", bytes == shape.block_elements() * 2);
    const auto host = cuda.AllocateHost(4 * bytes);
    Expect("AllocateHost", host.ok() && *host != nullptr);
    std::byte* memory = host->get();
    for (int64_t i = 0; i < 2 * bytes; ++i) memory[i] = static_cast<std::byte>(random_());
    std::vector<std::byte> plain(bytes);
    Expect("CopyKvFromHost", cuda.CopyKvFromHost({{2, memory}, {7, memory + bytes}}).ok());
    Expect("CopyKvToHost",
           cuda.CopyKvToHost({{7, memory + 2 * bytes}, {2, memory + 3 * bytes}, {2, plain.data()}}).ok());
    Expect("KV of block 7", std::equal(memory + bytes, memory + 2 * bytes, memory + 2 * bytes));
    Expect("KV of block 2", std::equal(memory, memory + bytes, memory + 3 * bytes));
    Expect("KV of block 2, to memory that is not pinned", std::equal(memory, memory + bytes, plain.data()));
  }

 private:
  // Whether `token`, and none before it but for rounding, is what `draw` draws.
  static bool IsDrawn(const float* row, int32_t size, const Backend::Draw& draw, int32_t token) {
    if (token < 0 || token >= size) return false;
    const float largest = *std::max_element(row, row + size);
    if (draw.temperature == 0.0f) return token == std::max_element(row, row + size) - row;
    double total = 0, before = 0;
    for (int32_t i = 0; i < size; ++i) {
      if (i == token) before = total;
      total += std::exp((static_cast<double>(row[i]) - largest) / draw.temperature);
    }
    const double own = std::exp((static_cast<double>(row[token]) - largest) / draw.temperature);
    const double target = draw.uniform * total;
    return before <= target + 1e-5 * total && before + own >= target - 1e-5 * total;
  }

  void Gather(int32_t rows, int32_t size) {
    const Twins::Pair x = Random(int64_t{rows} * size);
    const Twins::WeightPair table = twins_.MakeWeights(9, size * 8, RandomBf16(int64_t{9} * size * 8, 1.0f, random_));
    std::vector<int32_t> indices, tokens;
    for (int32_t i = 0; i < 5; ++i) indices.push_back(static_cast<int32_t>(random_() % rows));
    for (int32_t i = 0; i < 7; ++i) tokens.push_back(static_cast<int32_t>(random_() % 9));
    const Twins::Pair gathered = twins_.MakePoisoned(5 * size);
    const Twins::Pair embedded = twins_.MakePoisoned(7 * 8 * size);
    twins_.Both([&](Backend& b, auto at) {
      b.BeginStep({});
      b.GatherRows(*at(x), indices, size, *at(gathered));
      b.Embed(*at(table), tokens, *at(embedded));
    });
    Compare(absl::StrCat("GatherRows ", size), gathered, 0, 0);
    Compare(absl::StrCat("Embed ", size * 8), embedded, 0, 0);
  }

  Twins::Pair Random(int64_t count) { return twins_.Make(RandomBf16(count, 1.0f, random_)); }

  void Compare(const std::string& what, const Twins::Pair& pair, double relative, double absolute) {
    tally.Compare(what, twins_.CudaValues(pair), twins_.CpuValues(pair), relative, absolute);
  }
  void Expect(const std::string& what, bool holds) { tally.Expect(what, holds); }

  Twins& twins_;
  std::mt19937 random_;

 public:
  Tally tally;
};

void Few(KernelCheck& check, AttentionCheck& attention, bool invariant) {
  check.Rows(3, 257);
  check.Rows(3, 64);
  check.Product(3, 264, {40, 33}, true);
  check.Product(33, 576, {192, 64}, false);
  check.Together(9, 264, 40, 2);
  check.Gated(3, 264, 40);
  check.Chain(3, 264, 520, 40);
  check.KvCopies();
  check.DrawTokens(5, 4100);
  attention.Attention(128, 2, 4, {300, 65, 1100}, {1, 1, 2}, false);
  attention.Decode(128, 2, 4, {300, 63, 64, 1100});
  attention.Attention(128, 2, 4, {300, 65}, {140, 1}, true);
  attention.Attention(64, 1, 3, {300, 65}, {70, 1}, false);
  if (invariant) attention.Invariance(128, 1, 4, {600, 70});
}

int Run(uint32_t seed, const cuda::DeviceOptions& options, bool few) {
  const std::unique_ptr<Twins> twins = Twins::Create(options);
  if (twins == nullptr) return 0;
  KernelCheck check(*twins, seed);
  AttentionCheck attention(*twins, seed + 1, check.tally);
  if (few) {
    Few(check, attention, options.batch_invariant);
    return check.tally.Finish();
  }
  for (const int32_t rows : {1, 3, 130}) {
    for (const int32_t size : {1, 7, 8, 64, 257, 576, 2048, 2056, 4096, 8192, 8200}) check.Rows(rows, size);
  }
  for (const int32_t rows : {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 33, 100, 129}) {
    check.Product(rows, 64, {16}, false);
    check.Product(rows, 8, {2, 7, 24}, false);
    check.Product(rows, 576, {192, 64, 64}, false);
    check.Product(rows, 264, {40, 33, 1000, 48}, true);
    check.Product(rows, 1536, {576}, true);
  }
  check.Product(4, 4096, {4096, 1024}, false);
  check.Product(300, 4096, {1024}, false);
  for (const int32_t rows : {1, 8, 9, 70}) {
    check.Together(rows, 576, 64, 3);
    check.Together(rows, 264, 40, 2);
  }
  for (const int32_t rows : {1, 2, 7, 8, 9, 70}) {
    check.Gated(rows, 576, 192);
    check.Gated(rows, 264, 41);
    check.Gated(rows, 64, 8);
    check.Chain(rows, 576, 192, 88);
    check.Chain(rows, 1032, 4096, 16);
  }
  check.KvCopies();
  for (const int32_t size : {1, 7, 2048, 2049, 32000, 128256}) check.DrawTokens(12, size);
  for (const int32_t group : {1, 3, 4, 8}) {
    attention.Attention(128, 2, group, {1000, 128, 127, 400}, {600, 128, 127, 99}, false);
    attention.Attention(128, 2, group, {1100, 256, 257}, {1000, 1, 129}, true);
  }
  // Few tokens of contexts so long that heads are cut where shares of the work end.
  attention.Attention(128, 8, 4, {1400, 63, 64, 65, 2100, 5000, 1, 1700, 999, 1024, 1025, 3333},
                      {1, 1, 2, 3, 1, 4, 1, 1, 1, 2, 1, 1}, false);
  attention.Attention(128, 8, 1, {3100, 16, 2000, 700}, {1, 16, 9, 1}, false);
  attention.Decode(128, 8, 4, {1400, 63, 64, 65, 2100, 5000, 0, 1700, 999, 1023, 1024, 3333});
  for (const int32_t group : {1, 3, 4, 8, 16, 17}) {
    attention.Decode(128, 2, group, {1, 15, 16, 47, 48, 200, 0, 62});
    attention.Decode(64, 2, group, {1, 15, 16, 47, 48, 200, 0, 62});
  }
  for (const int32_t head : {16, 32, 64, 80, 96, 128}) {
    for (const int32_t group : {1, 2, 3, 4, 5, 7, 8, 17}) {
      for (const bool turn : {false, true}) {
        const int32_t kv_heads = 1 + group % 3;
        attention.Attention(head, kv_heads, group, {1, 15, 16, 17, 63, 64, 65, 200}, {1, 1, 1, 1, 1, 1, 1, 1}, turn);
        attention.Attention(head, kv_heads, group, {1500}, {1}, turn);
        attention.Attention(head, kv_heads, group, {70, 130, 33, 5, 300}, {70, 3, 2, 5, 1}, turn);
        attention.Attention(head, kv_heads, group, {129, 1}, {128, 1}, turn);
      }
    }
  }
  if (options.batch_invariant) {
    attention.Invariance(128, 2, 4, {8000, 1000});
    attention.Invariance(128, 8, 1, {8000, 900, 513, 257, 300, 65, 8000, 700});
    for (const int32_t head : {16, 64, 80, 128}) {
      for (const int32_t group : {1, 3, 17}) attention.Invariance(head, 2, group, {1100, 300, 900, 257, 100});
    }
  }
  return check.tally.Finish();
}

}  // namespace
}  // namespace fermata::kernels

int main(int argc, char** argv) {
  const uint32_t seed = fermata::kernels::SeedOf(argc, argv);
  fermata::kernels::cuda::DeviceOptions options;
  const std::vector<std::string> words(argv + std::min(argc, 2), argv + argc);
  const auto has = [&](const std::string& word) { return std::count(words.begin(), words.end(), word) > 0; };
  options.hopper_attention = !has("portable");
  options.batch_invariant = has("invariant");
  return fermata::kernels::Run(seed, options, has("few"));
}
