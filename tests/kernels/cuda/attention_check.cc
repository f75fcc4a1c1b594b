#include "tests/kernels/cuda/attention_check.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

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

std::vector<AttentionCheck::Context> AttentionCheck::MakeContexts(int32_t head_size, int32_t kv_heads, int32_t group,
                                                                  const std::vector<int32_t>& lengths) {
  std::vector<float> frequencies(head_size / 2);
  for (int32_t i = 0; i < head_size / 2; ++i) frequencies[i] = std::pow(10000.0f, -2.0f * i / head_size);
  std::vector<Context> contexts;
  int32_t block_count = 0;
  for (const int32_t length : lengths) {
    const int64_t size = int64_t{length} * kv_heads * head_size;
    contexts.push_back({RandomBf16(size * group, 1.0f, random_),
                        RandomBf16(size, 1.0f, random_),
                        RandomBf16(size, 1.0f, random_),
                        {},
                        length});
    for (int32_t p = 0; p < length; p += kBlockTokens) contexts.back().blocks.push_back(block_count++);
  }
  CudaBackend& cuda = twins_.cuda();
  Expect("SetRope", cuda.SetRope(frequencies).ok());
  Expect("AllocateKv", cuda.AllocateKv({block_count, kBlockTokens, 2, kv_heads, head_size}).ok());
  for (const Context& context : contexts) Step(kv_heads, kv_heads * group, {{&context, 0, context.length}});
  return contexts;
}

std::vector<float> AttentionCheck::Step(int32_t kv_heads, int32_t head_count, const std::vector<Part>& parts) {
  std::vector<Segment> segments;
  std::vector<float> q, k, v;
  int32_t rows = 0;
  for (const Part& part : parts) {
    const auto add = [&](const std::vector<float>& from, std::vector<float>* to) {
      const int64_t size = static_cast<int64_t>(from.size()) / part.context->length;
      to->insert(to->end(), from.begin() + part.first * size, from.begin() + (part.first + part.count) * size);
    };
    add(part.context->q, &q);
    add(part.context->k, &k);
    add(part.context->v, &v);
    segments.push_back({rows, part.count, part.first, part.context->blocks.data()});
    rows += part.count;
  }
  const Twins::Pair queries = twins_.Make(q);
  const Twins::Pair keys = twins_.Make(k);
  const Twins::Pair values = twins_.Make(v);
  const Twins::Pair output = twins_.MakePoisoned(queries.count);
  CudaBackend& cuda = twins_.cuda();
  cuda.BeginStep(segments);
  cuda.RopeAndStore(1, head_count, *queries.cuda, *keys.cuda, *values.cuda);
  cuda.Attention(1, head_count, *queries.cuda, *output.cuda);
  return twins_.CudaValues(output);
}

std::vector<AttentionCheck::Part> AttentionCheck::InCompany(const std::vector<Context>& contexts,
                                                            const Context& context, int32_t position, int32_t* row) {
  const auto below = [&](int32_t bound) { return static_cast<int32_t>(random_() % static_cast<uint32_t>(bound)); };
  std::vector<Part> parts;
  for (const Context& other : contexts) {
    if (&other == &context || below(3) == 0) continue;
    const int32_t count = std::min(below(2) == 0 ? 1 : 1 + below(9), other.length);
    parts.push_back({&other, below(other.length - count + 1), count});
  }
  const int32_t most = below(3) == 0 ? 0 : below(2) == 0 ? 2 : 200;
  const int32_t before = std::min(below(most + 1), position);
  const int32_t after = std::min(below(most + 1), context.length - 1 - position);
  parts.push_back({&context, position - before, before + 1 + after});
  std::shuffle(parts.begin(), parts.end(), random_);
  *row = before;
  for (const Part& part : parts) {
    if (part.context == &context) break;
    *row += part.count;
  }
  return parts;
}

void AttentionCheck::Invariance(int32_t head_size, int32_t kv_heads, int32_t group,
                                const std::vector<int32_t>& lengths) {
  const std::vector<Context> contexts = MakeContexts(head_size, kv_heads, group, lengths);
  const int32_t size = kv_heads * group * head_size;
  for (const Context& context : contexts) {
    for (const int32_t length : {1, 64, 65, 255, 256, 257, 512, 838, 8000}) {
      if (length > context.length) continue;
      const std::vector<float> alone = Step(kv_heads, kv_heads * group, {{&context, length - 1, 1}});
      for (int round = 0; round < 6; ++round) {
        int32_t row = 0;
        const std::vector<Part> parts = InCompany(contexts, context, length - 1, &row);
        const std::vector<float> all = Step(kv_heads, kv_heads * group, parts);
        tally_.Compare(absl::StrCat("Invariance head ", head_size, ", ", kv_heads, " x ", group, ", length ", length,
                                    " of ", context.length, ", row ", row, " of ", all.size() / size),
                       absl::MakeConstSpan(all).subspan(int64_t{row} * size, size), alone, 0, 0);
      }
    }
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
