// What a device must be able to do for a transformer's forward pass. The forward pass is written once over this; it
// knows neither threads nor vector instructions nor CUDA, and this knows nothing of generations or schedules.
//
// Shapes are written [outermost][..][innermost], row-major. A "row" is one token of the step. Activations are Buffers:
// memory of this device, of an element type that is the device's own affair (float32 on the CPU, bfloat16 elsewhere).
// Work is asynchronous where the device is; Synchronize() waits for it.
//
// A batch-invariant back end promises: what is computed for a row depends on nothing but that row (and, in attention,
// the KV of its own context): not on how many rows there are, on their order, or on threads. Same bits.

#ifndef FERMATA_KERNELS_BACKEND_H_
#define FERMATA_KERNELS_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/weight_type.h"

namespace fermata::kernels {

// Weights made ready for a device. Made by one backend and used with that one alone.
class Weights {
 public:
  virtual ~Weights() = default;

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

 protected:
  Weights(int64_t rows, int64_t columns) : rows_(rows), columns_(columns) {}

 private:
  int64_t rows_;
  int64_t columns_;
};

// Elements on a device. Made by one backend and used with that one alone.
class Buffer {
 public:
  virtual ~Buffer() = default;

 protected:
  Buffer() = default;
};

// The paged KV cache: [block][layer][K, V][kv head][slot][head size], so that one block of all layers is one piece. How
// the elements of one head in one block are laid out is the back end's affair.
struct KvShape {
  int32_t block_count = 0;
  int32_t block_tokens = 0;  // slots of a block
  int32_t layer_count = 0;
  int32_t kv_head_count = 0;
  int32_t head_size = 0;

  int64_t head_elements() const { return int64_t{block_tokens} * head_size; }
  int64_t layer_elements() const { return 2 * kv_head_count * head_elements(); }
  int64_t block_elements() const { return layer_count * layer_elements(); }
};

// The rows of one generation in a step: row first_row + i is the token at position first_position + i. They follow each
// other, segment after segment.
struct Segment {
  int32_t first_row = 0;
  int32_t row_count = 0;
  int32_t first_position = 0;
  const int32_t* blocks =
      nullptr;  // physical block of each logical one, for all positions up to the last of these rows
};

class Backend {
 public:
  virtual ~Backend() = default;

  // Makes weights ready: a matrix, or a vector if it has one row, which is then no operand of MatMul. `view` must
  // outlive them: they may go on reading it. RESOURCE_EXHAUSTED if there is no memory.
  virtual absl::StatusOr<std::unique_ptr<Weights>> Prepare(const WeightView& view) = 0;

  // Makes matrices ready that are always given to MatMul() together, in this order: a back end may keep them as one.
  // Else as Prepare().
  virtual absl::StatusOr<std::vector<std::unique_ptr<Weights>>> PrepareTogether(absl::Span<const WeightView> views);

  // Whether weights go on reading the view that they were made from. If not, it may go when Prepare() is done.
  virtual bool KeepsViews() const { return true; }

  // Whether it keeps the promise above.
  virtual bool batch_invariant() const = 0;

  // Whether a device computes what is asked for, while the thread that asks goes on. Else each call returns when all is
  // computed.
  virtual bool asynchronous() const { return false; }

  // Bytes of the device's own memory that are free now; below 0: it works in the host's.
  virtual int64_t free_memory_bytes() const { return -1; }

  // Of all there is; below 0 likewise.
  virtual int64_t total_memory_bytes() const { return -1; }

  // Bytes of one element of the KV cache.
  virtual int32_t kv_element_bytes() const = 0;

  // RESOURCE_EXHAUSTED if there is no memory. Contents are undefined.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t element_count) = 0;

  // The same, of float32 whatever the device's own type is: for the results of products that ToHost() then gets.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> AllocateFloats(int64_t element_count) = 0;

  // Buffers [rows][sizes[i]] for the products of matrices made ready together: a back end may put a row of all of them
  // into one piece. Else as Allocate().
  virtual absl::StatusOr<std::vector<std::unique_ptr<Buffer>>> AllocateTogether(int64_t rows,
                                                                                absl::Span<const int64_t> sizes);

  // [head size / 2]: how far pair i of a head is turned from one position to the next. Copied. Called once, before the
  // first step.
  virtual absl::Status SetRope(absl::Span<const float> frequencies) = 0;

  // The KV cache that the operations below use. Called once. RESOURCE_EXHAUSTED, with the numbers, if there is no
  // memory.
  virtual absl::Status AllocateKv(const KvShape& shape) = 0;

  // Copies one block of the cache, all layers, to or from memory of the host: kv_block_bytes() there. Any thread,
  // beside everything else, for blocks that no other operation touches meanwhile. Returns when it is done.
  struct KvBlockCopy {
    int32_t block;
    std::byte* host;
  };
  virtual int64_t kv_block_bytes() const = 0;
  virtual absl::Status CopyKvToHost(absl::Span<const KvBlockCopy> copies) = 0;
  virtual absl::Status CopyKvFromHost(absl::Span<const KvBlockCopy> copies) = 0;

  // Memory of the host that such copies are fast from and to; null: any is. RESOURCE_EXHAUSTED if there is none.
  virtual absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(int64_t bytes) { return nullptr; }

  // The rows that the operations below work on, until the next call. `segments` and the blocks that they name must stay
  // until the step is over: until Synchronize() or ToHost().
  virtual void BeginStep(absl::Span<const Segment> segments) = 0;

  // output[r] = row tokens[r] of `table`. `tokens` is host memory, read before this returns; output is [rows][columns].
  virtual void Embed(const Weights& table, absl::Span<const int32_t> tokens, Buffer& output) = 0;

  // output[r][i] = x[r][i] / sqrt(mean(x[r]^2) + epsilon) * weight[i]; x and output [rows][columns], the same or two.
  virtual void RmsNorm(const Weights& weight, float epsilon, const Buffer& x, int32_t rows, Buffer& output) = 0;

  // x[r][i] += delta[r][i], and then output = RmsNorm(x). All [rows][columns], and three different buffers.
  virtual void AddRmsNorm(const Weights& weight, float epsilon, const Buffer& delta, int32_t rows, Buffer& x,
                          Buffer& output) = 0;

  // For each matrix w: its output[r][o] = sum over i of w[o][i] * x[r][i]; x [rows][columns], output [rows][w.rows].
  // All have the same columns. Given together so that x is read and prepared once.
  struct Product {
    const Weights* weights;
    Buffer* output;
  };
  virtual void MatMul(absl::Span<const Product> products, const Buffer& x, int32_t rows) = 0;

  // Chooses how products of up to `max_rows` rows are computed, by measuring. `alike` are operands of MatMul() that
  // differ in nothing but what the weights hold; x and the outputs, which are written over, have room for all rows.
  // Never in a step; without it, a product's first use may take long.
  virtual absl::Status TuneMatMul(absl::Span<const std::vector<Product>> alike, Buffer& x, int32_t max_rows);

  // The same for GatedMatMul(): the gate and what passes through it.
  virtual absl::Status TuneGatedMatMul(absl::Span<const std::vector<Product>> alike, Buffer& x, int32_t max_rows);

  // Rotates q [rows][head_count][head size] and k [rows][kv heads][head size] in place by their positions: neighbouring
  // elements 2i and 2i+1 are a pair, turned by position * frequencies[i]. Then writes k and v into the cache of
  // `layer`.
  virtual void RopeAndStore(int32_t layer, int32_t head_count, Buffer& q, Buffer& k, const Buffer& v) = 0;

  // Right after RopeAndStore() of the same layer, which may be done on the way: what q holds then is the back end's
  // affair. output[r][h] = attention of query q[r][h] over all positions of its segment up to its own; query heads
  // share KV heads in groups of head_count / kv heads. Scores are scaled by 1 / sqrt(head size). q, output:
  // [rows][head_count][head size].
  virtual void Attention(int32_t layer, int32_t head_count, const Buffer& q, Buffer& output) = 0;

  // gate[r][i] = silu(gate[r][i]) * up[r][i]; both [rows][size].
  virtual void SwiGlu(const Buffer& up, int32_t rows, int32_t size, Buffer& gate) = 0;

  // MatMul() of both, which have the same sizes, and then gate.output = SwiGlu() of the two: an operand of MatMul()
  // alone, until it is written again. What up.output then holds is the back end's affair.
  virtual void GatedMatMul(const Product& gate, const Product& up, const Buffer& x, int32_t rows);

  // What a layer computes between its attention and that of the next one. Buffers are those of MatMul() and
  // AddRmsNorm() when each is asked for by itself; what normed, gate and up hold after it is the back end's affair.
  struct LayerPassage {
    const Weights* attention_output = nullptr;
    const Weights* feed_forward_norm = nullptr;
    Product gate;
    Product up;
    const Weights* down = nullptr;
    const Weights* next_norm = nullptr;  // null: this is the last layer
    std::vector<Product> next_inputs;    // empty: likewise
    float epsilon = 0;
    const Buffer* attention = nullptr;  // [rows][attention_output.columns]
    Buffer* hidden = nullptr;           // [rows][embedding]
    Buffer* normed = nullptr;           // the same shape
  };

  // hidden += attention_output * attention; gate = GatedMatMul() of RmsNorm(hidden); hidden += down * gate; and, if
  // there is a next layer, next_inputs = MatMul() of RmsNorm(hidden). False, and nothing is asked for, where the back
  // end has no better way than to be asked for each.
  virtual bool PassLayer(const LayerPassage& passage, int32_t rows) { return false; }

  // x[r][i] += bias[i]; x [rows][bias.columns].
  virtual void AddBias(const Weights& bias, int32_t rows, Buffer& x) = 0;

  // x[i] += y[i].
  virtual void Add(const Buffer& y, int64_t count, Buffer& x) = 0;

  // output[n] = x[indices[n]]; x has rows of `size`. `indices` is host memory, read before this returns.
  virtual void GatherRows(const Buffer& x, absl::Span<const int32_t> indices, int32_t size, Buffer& output) = 0;

  // How a token is drawn from a row of logits: with temperature 0 the most likely one, the lowest id among equals; else
  // the first whose share of exp(logit / temperature), and that of all before it, is above `uniform`, in [0, 1).
  struct Draw {
    double uniform = 0;
    float temperature = 0;
  };

  // Whether it has DrawTokens().
  virtual bool DrawsTokens() const { return false; }

  // Draws from rows first_row and on of `logits`, made by AllocateFloats(), [rows][size]: one for each of `draws`; -1
  // where a logit is NaN or none is finite. Host memory, valid until the next call. Synchronizes.
  virtual absl::StatusOr<absl::Span<const int32_t>> DrawTokens(const Buffer& logits, int32_t first_row, int32_t size,
                                                               absl::Span<const Draw> draws);

  // What a logit becomes before a token is selected: of `token`, first + bias; then divided by `repetition` if it is
  // above 0, else multiplied; then - penalty.
  struct LogitChange {
    int32_t token = 0;
    float bias = 0;
    float repetition = 1;
    float penalty = 0;
  };

  // A draw that asks for more. Of the tokens in the order of their logits, the lower one first among equals: the first
  // top_k (0: all); of these as many as have top_p of their weight together; and of those whose weight is at least
  // min_p of the largest one's. The draw is among them, in this order. `logprobs`: -1 for none, else how many of the
  // most likely are wanted besides the token's own; they are of the logits as they were.
  struct Selection {
    Draw draw;
    int32_t top_k = 0;
    float top_p = 1;
    float min_p = 0;
    int32_t logprobs = -1;
    int32_t first_change = 0;  // its changes: of different tokens
    int32_t change_count = 0;
  };

  struct SelectedToken {
    static constexpr int32_t kMostLikely = 20;

    int32_t token;  // -1: a logit is NaN, or none is finite
    float logprob;
    int32_t most_likely[kMostLikely];
    float most_likely_logprobs[kMostLikely];
  };

  // How many changes SelectTokens() takes at once; below 0: it is not there.
  virtual int32_t max_logit_changes() const { return -1; }

  // Selects from rows first_row and on, which it may write over: one for each of `selections`. Else as DrawTokens().
  virtual absl::StatusOr<absl::Span<const SelectedToken>> SelectTokens(Buffer& logits, int32_t first_row, int32_t size,
                                                                       absl::Span<const Selection> selections,
                                                                       absl::Span<const LogitChange> changes);

  // Keeps what `ask` asks of this back end after BeginStep(), for steps of decode to come: as many rows as that, or
  // fewer, each a segment of its own. `ask` is called more than once, asks always for the same, of `rows` rows, and
  // neither synchronizes nor draws; its tokens are any, its only GatherRows() is of any rows. Never in a step. The
  // weights and buffers must outlive it; AllocateKv(), which must come before, forgets it. UNIMPLEMENTED: this back end
  // keeps nothing.
  virtual absl::Status Record(int32_t rows, absl::FunctionRef<void()> ask);

  // BeginStep() and what was kept for the fewest rows that are enough, with these tokens for Embed() and these rows for
  // GatherRows(), as many as there are segments. False, and nothing is done, if nothing that was kept will do.
  virtual bool Replay(absl::Span<const Segment> segments, absl::Span<const int32_t> tokens,
                      absl::Span<const int32_t> output_rows) {
    return false;
  }

  // Waits for everything asked so far. Not OK if any of it failed: then nothing computed since the last call can be
  // trusted.
  virtual absl::Status Synchronize() = 0;

  // Host memory with the first `count` elements of a buffer made by AllocateFloats(): valid until the next call.
  // Synchronizes.
  virtual absl::StatusOr<absl::Span<const float>> ToHost(const Buffer& floats, int64_t count) = 0;
};

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_BACKEND_H_
