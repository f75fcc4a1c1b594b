#include "tests/kernels/cuda/attention_check.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace fermata::kernels {
namespace {

constexpr double kRounding = 1.0 / 256;
constexpr int32_t kBlockTokens = 16;

}  // namespace

void AttentionCheck::Attention(int32_t head_size, int32_t kv_heads, int32_t group, const std::vector<int32_t>& lengths,
                               const std::vector<int32_t>& counts, bool turn) {
  const int32_t layers = 2;
  std::vector<float> frequencies(head_size / 2);
  for (int32_t i = 0; i < head_size / 2; ++i) frequencies[i] = turn ? std::pow(100.0f, -2.0f * i / head_size) : 0.0f;
  int32_t block_count = 1;
  for (const int32_t length : lengths) block_count += (length + kBlockTokens - 1) / kBlockTokens;
  for (Backend* backend : twins_.Backends()) {
    Expect("SetRope", backend->SetRope(frequencies).ok());
    Expect("AllocateKv", backend->AllocateKv({block_count, kBlockTokens, layers, kv_heads, head_size}).ok());
  }
  std::vector<std::vector<int32_t>> blocks(lengths.size());
  int32_t next = block_count;
  for (size_t i = 0; i < lengths.size(); ++i) {
    for (int32_t p = 0; p < lengths[i]; p += kBlockTokens) blocks[i].push_back(--next);
  }
  PoisonCache(block_count, layers, kv_heads, head_size);
  std::vector<Segment> before, now;
  int32_t before_rows = 0, rows = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    const int32_t old = lengths[i] - counts[i];
    if (old > 0) before.push_back({before_rows, old, 0, blocks[i].data()});
    now.push_back({rows, counts[i], old, blocks[i].data()});
    before_rows += old;
    rows += counts[i];
  }
  const std::string shape =
      absl::StrCat("head ", head_size, ", ", kv_heads, " x ", group, ", ", lengths.size(), " contexts of ", lengths[0],
                   "... and ", counts[0], "... rows", turn ? ", turned" : "");
  if (before_rows > 0) Store(before, before_rows, kv_heads, group, head_size, nullptr, shape);
  Twins::Pair q;
  Store(now, rows, kv_heads, group, head_size, &q, shape);
  const Twins::Pair output = twins_.MakePoisoned(q.count);
  twins_.Both([&](Backend& b, auto at) { b.Attention(1, kv_heads * group, *at(q), *at(output)); });
  Compare("Attention " + shape, output, 2 * kRounding, turn ? 0.04 : 0.01);
  twins_.Both([&](Backend& b, auto) { Expect("Synchronize", b.Synchronize().ok()); });
}

void AttentionCheck::Decode(int32_t head_size, int32_t kv_heads, int32_t group, const std::vector<int32_t>& lengths) {
  std::vector<float> frequencies(head_size / 2);
  for (int32_t i = 0; i < head_size / 2; ++i) frequencies[i] = std::pow(100.0f, -2.0f * i / head_size);
  const int32_t count = static_cast<int32_t>(lengths.size());
  std::vector<std::vector<int32_t>> blocks(lengths.size());
  int32_t block_count = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    for (int32_t p = 0; p < lengths[i] + 2; p += kBlockTokens) blocks[i].push_back(block_count++);
  }
  for (Backend* backend : twins_.Backends()) {
    Expect("SetRope", backend->SetRope(frequencies).ok());
    Expect("AllocateKv", backend->AllocateKv({block_count, kBlockTokens, 2, kv_heads, head_size}).ok());
  }
  PoisonCache(block_count, 2, kv_heads, head_size);
  const std::string shape = absl::StrCat("head ", head_size, ", ", kv_heads, " x ", group, ", ", count, " contexts of ",
                                         lengths[0], "... and one more");
  std::vector<Segment> before;
  int32_t before_rows = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] == 0) continue;
    before.push_back({before_rows, lengths[i], 0, blocks[i].data()});
    before_rows += lengths[i];
  }
  Store(before, before_rows, kv_heads, group, head_size, nullptr, shape);
  for (const int32_t more : {0, 1}) {
    std::vector<Segment> now;
    for (int32_t i = 0; i < count; ++i) now.push_back({i, 1, lengths[i] + more, blocks[i].data()});
    const Twins::Pair q = Random(int64_t{count} * kv_heads * group * head_size);
    const Twins::Pair k = Random(int64_t{count} * kv_heads * head_size);
    const Twins::Pair v = Random(int64_t{count} * kv_heads * head_size);
    const Twins::Pair output = twins_.MakePoisoned(q.count);
    twins_.Both([&](Backend& b, auto at) {
      b.BeginStep(now);
      b.RopeAndStore(1, kv_heads * group, *at(q), *at(k), *at(v));
      b.Attention(1, kv_heads * group, *at(q), *at(output));
    });
    Compare("Decode " + shape, output, 2 * kRounding, 0.04);
  }
}

void AttentionCheck::Store(const std::vector<Segment>& segments, int32_t rows, int32_t kv_heads, int32_t group,
                           int32_t head_size, Twins::Pair* q_out, const std::string& shape) {
  Twins::Pair q = Random(int64_t{rows} * kv_heads * group * head_size);
  const Twins::Pair k = Random(int64_t{rows} * kv_heads * head_size);
  const Twins::Pair v = Random(int64_t{rows} * kv_heads * head_size);
  twins_.Both([&](Backend& b, auto at) {
    b.BeginStep(segments);
    b.RopeAndStore(1, kv_heads * group, *at(q), *at(k), *at(v));
  });
  Compare("RopeAndStore " + shape, q, kRounding, 2e-4);
  if (q_out == nullptr) return;
  // The same queries for both, rounded.
  *q_out = twins_.Make(twins_.CudaValues(q));
  twins_.cuda().BeginStep(segments);
}

void AttentionCheck::PoisonCache(int32_t block_count, int32_t layers, int32_t kv_heads, int32_t head_size) {
  const int32_t rows = block_count * kBlockTokens;
  std::vector<int32_t> blocks(block_count);
  for (int32_t i = 0; i < block_count; ++i) blocks[i] = i;
  const std::vector<Segment> all = {{0, rows, 0, blocks.data()}};
  Twins::Pair poison = twins_.MakePoisoned(int64_t{rows} * kv_heads * head_size);
  twins_.Both([&](Backend& b, auto at) {
    b.BeginStep(all);
    for (int32_t layer = 0; layer < layers; ++layer) {
      b.RopeAndStore(layer, kv_heads, *at(poison), *at(poison), *at(poison));
    }
  });
}

}  // namespace fermata::kernels
