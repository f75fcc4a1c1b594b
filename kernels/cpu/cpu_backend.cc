#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/packed_matrix.h"

namespace fermata::kernels {
namespace {

class MappedBuffer : public Buffer {
 public:
  explicit MappedBuffer(HugePages pages) : pages_(std::move(pages)) {}
  float* data() const { return reinterpret_cast<float*>(pages_.data()); }

 private:
  HugePages pages_;
};

// Groups of 16 weight rows that a thread takes at a time: enough to hide the hand-over, few enough to share evenly.
int64_t GroupChunk(int64_t group_count, int threads) { return std::max<int64_t>(1, group_count / (threads * 8)); }

// Rows that a thread takes at a time, of operations on one row.
constexpr int64_t kRowChunk = 4;

// From so many rows for each thread on, threads share out the rows of a product, and not its weights: then these are
// read by every thread, but activations by one alone.
constexpr int kRowsOfAThread = 16;

// Groups of gate and up whose products are kept until SwiGlu: few enough for the first cache.
constexpr int kGatedGroups = 8;

// How many rows of a product a thread takes at a time; 0: threads share out its weights. Twice a tile, for its weights
// are near for the second one, unless that would leave a thread with less to do than the others.
int64_t RowsAtOnce(int64_t rows, int threads) {
  if (rows < int64_t{kRowsOfAThread} * threads) return 0;
  const bool even = rows % (int64_t{kRowsOfAThread} * threads) == 0 || rows >= int64_t{4} * kRowsOfAThread * threads;
  return even ? kRowsOfAThread : kRowTile;
}

}  // namespace

// Keeps the packed copy where there is one, and a view of the original for looking up single rows.
class CpuBackend::CpuWeights : public Weights {
 public:
  CpuWeights(const WeightView& view, std::unique_ptr<PackedMatrix> packed)
      : Weights(view.rows, view.columns), view_(view), packed_(std::move(packed)) {
    if (view.rows == 1) {
      vector_.resize(view.columns);
      DequantizeRow(view, 0, vector_.data());
    }
  }

  const WeightView& view() const { return view_; }
  const PackedMatrix* packed() const { return packed_.get(); }

  // A vector's elements; empty for a matrix.
  const std::vector<float>& vector() const { return vector_; }

  static const CpuWeights& From(const Weights& weights) { return static_cast<const CpuWeights&>(weights); }

 private:
  WeightView view_;
  std::unique_ptr<PackedMatrix> packed_;
  std::vector<float> vector_;
};

CpuBackend::CpuBackend(const CpuBackendOptions& options)
    : options_(options),
      ops_(options.exact ? PlainRowOps() : VectorRowOps(options.instruction_set == InstructionSet::kAvx512Vnni)),
      packed_product_(ProductFor(options.instruction_set)),
      pool_(options.threads),
      attention_(ops_, pool_),
      scratch_(options.threads) {}

CpuBackendOptions CpuBackend::BestOptions(int threads) {
  return {.threads = threads,
          .exact = false,
          .instruction_set = SupportedInstructionSets().back(),
          .kv_type = KvType::kF16};
}

std::string CpuBackend::Describe() const {
  return absl::StrCat(options_.exact ? "exact" : Name(options_.instruction_set), " kernels, KV in ", Name(kv_type()),
                      ", ", pool_.threads(), pool_.threads() == 1 ? " thread" : " threads", " on processors ",
                      ThreadPool::Processors());
}

absl::StatusOr<std::unique_ptr<Weights>> CpuBackend::Prepare(const WeightView& view) {
  const bool pack = !options_.exact && view.rows > 1 && PackedMatrix::CanPack(view.type);
  std::unique_ptr<PackedMatrix> packed = pack ? PackedMatrix::Pack(view, packed_) : nullptr;
  if (view.rows > 1) (pack ? packed_columns_ : float_columns_).insert(view.columns);
  if (pack && packed == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory to pack a matrix of ", view.rows, " x ", view.columns));
  }
  return std::make_unique<CpuWeights>(view, std::move(packed));
}

float* CpuBackend::Data(Buffer& buffer) { return static_cast<MappedBuffer&>(buffer).data(); }
const float* CpuBackend::Data(const Buffer& buffer) { return static_cast<const MappedBuffer&>(buffer).data(); }

absl::StatusOr<std::unique_ptr<Buffer>> CpuBackend::Allocate(int64_t element_count) {
  const size_t size = static_cast<size_t>(std::max<int64_t>(element_count, 1)) * sizeof(float);
  // Taken only when touched: a large KV pool costs what is used of it.
  HugePages pages(size);
  if (pages.data() == nullptr) return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", size, " bytes"));
  return std::make_unique<MappedBuffer>(std::move(pages));
}

absl::Status CpuBackend::AllocateKv(const KvShape& shape) {
  kv_shape_ = shape;
  kv_ = std::make_unique<HugePages>(static_cast<size_t>(shape.block_count * kv_block_bytes()));
  if (kv_->data() != nullptr) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("the KV cache of ", shape.block_count, " blocks of ",
                                                   shape.block_tokens, " tokens: cannot allocate ",
                                                   shape.block_count * kv_block_bytes(), " bytes"));
}

int64_t CpuBackend::kv_block_bytes() const { return kv_shape_.block_elements() * kv_element_bytes(); }

absl::Status CpuBackend::CopyKvToHost(absl::Span<const KvBlockCopy> copies) {
  for (const KvBlockCopy& copy : copies) std::memcpy(copy.host, LayerOf(copy.block, 0), kv_block_bytes());
  return absl::OkStatus();
}

absl::Status CpuBackend::CopyKvFromHost(absl::Span<const KvBlockCopy> copies) {
  for (const KvBlockCopy& copy : copies) std::memcpy(LayerOf(copy.block, 0), copy.host, kv_block_bytes());
  return absl::OkStatus();
}

absl::Status CpuBackend::SetRope(absl::Span<const float> frequencies) {
  frequencies_.assign(frequencies.begin(), frequencies.end());
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const float>> CpuBackend::ToHost(const Buffer& floats, int64_t count) {
  return absl::MakeConstSpan(Data(floats), count);
}

void CpuBackend::Embed(const Weights& table, absl::Span<const int32_t> tokens, Buffer& output) {
  const WeightView& view = CpuWeights::From(table).view();
  float* const to = Overwrite(output);
  for (size_t r = 0; r < tokens.size(); ++r) DequantizeRow(view, tokens[r], to + r * view.columns);
}

float* CpuBackend::Overwrite(Buffer& buffer) {
  if (&buffer == quantized_of_) quantized_of_ = nullptr;
  if (&buffer == gated_of_) gated_of_ = nullptr;
  return Data(buffer);
}

bool CpuBackend::BeginQuantized(const Buffer& of, int32_t rows, int64_t columns) {
  if (packed_columns_.count(columns) == 0) return false;
  quantized_of_ = &of;
  quantized_rows_ = rows;
  quantized_.Resize(rows, columns);
  return true;
}

void CpuBackend::RmsNorm(const Weights& weight, float epsilon, const Buffer& x, int32_t rows, Buffer& output) {
  const float* from = Data(x);
  float* to = Overwrite(output);
  const std::vector<float>& factors = CpuWeights::From(weight).vector();
  const int32_t size = static_cast<int32_t>(factors.size());
  const bool quantize = BeginQuantized(output, rows, size);
  pool_.Run(rows, kRowChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      ops_.rms_norm(from + r * size, factors.data(), epsilon, size, to + r * size);
      if (quantize) ops_.quantize(to + r * size, r, 0, size / kActivationBlock, quantized_);
    }
  });
}

void CpuBackend::AddRmsNorm(const Weights& weight, float epsilon, const Buffer& delta, int32_t rows, Buffer& x,
                            Buffer& output) {
  float* const sum = Overwrite(x);
  float* const to = Overwrite(output);
  const std::vector<float>& factors = CpuWeights::From(weight).vector();
  const int32_t size = static_cast<int32_t>(factors.size());
  const bool quantize = BeginQuantized(output, rows, size);
  pool_.Run(rows, kRowChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      ops_.add(Data(delta) + r * size, size, sum + r * size);
      ops_.rms_norm(sum + r * size, factors.data(), epsilon, size, to + r * size);
      if (quantize) ops_.quantize(to + r * size, r, 0, size / kActivationBlock, quantized_);
    }
  });
}

void CpuBackend::MatMul(absl::Span<const Product> products, const Buffer& x, int32_t rows) {
  std::vector<Product> packed;
  for (const Product& product : products) {
    if (CpuWeights::From(*product.weights).packed() != nullptr) {
      packed.push_back(product);
    } else {
      MultiplyFloat(product, Data(x), rows);
    }
  }
  if (!packed.empty()) MultiplyPacked(packed, x, rows);
  for (const Product& product : products) Overwrite(*product.output);
}

QuantizedRows& CpuBackend::Quantized(const Buffer& x, int32_t rows, int64_t columns) {
  if (gated_of_ == &x && gated_rows_ == rows && gated_.columns() == columns) return gated_;
  const bool done = quantized_of_ == &x && quantized_rows_ == rows && quantized_.columns() == columns;
  quantized_of_ = nullptr;
  if (!done) {
    quantized_.Resize(rows, columns);
    pool_.Run(rows, kRowChunk, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) {
        ops_.quantize(Data(x) + r * columns, r, 0, columns / kActivationBlock, quantized_);
      }
    });
  }
  return quantized_;
}

void CpuBackend::MultiplyPacked(absl::Span<const Product> products, const Buffer& x, int32_t rows) {
  const QuantizedRows& quantized = Quantized(x, rows, products[0].weights->columns());
  const auto multiply = [&](const Product& product, Range groups, Range of_rows) {
    const PackedMatrix& matrix = *CpuWeights::From(*product.weights).packed();
    MultiplyPackedGroups(matrix, quantized, groups, of_rows,
                         Data(*product.output) + of_rows.begin * matrix.rows() + groups.begin * kPackedRows,
                         matrix.rows());
  };
  if (const int64_t chunk = RowsAtOnce(rows, pool_.threads()); chunk > 0) {
    // Each thread has rows of its own, which stay in its cache from operation to operation.
    pool_.Run(rows, chunk, [&](int64_t begin, int64_t end, int) {
      for (const Product& product : products) {
        multiply(product, {0, CpuWeights::From(*product.weights).packed()->group_count()}, {begin, end});
      }
    });
    return;
  }
  // The groups of all products in one range, so that threads meet once.
  std::vector<int64_t> ends;
  int64_t total = 0;
  for (const Product& product : products) {
    total += CpuWeights::From(*product.weights).packed()->group_count();
    ends.push_back(total);
  }
  pool_.Run(total, GroupChunk(total, pool_.threads()), [&](int64_t begin, int64_t end, int) {
    int64_t first = 0;
    for (size_t i = 0; i < products.size(); first = ends[i++]) {
      const int64_t from = std::max(begin, first);
      const int64_t to = std::min(end, ends[i]);
      if (from < to) multiply(products[i], {from - first, to - first}, {0, rows});
    }
  });
}

void CpuBackend::MultiplyPackedGroups(const PackedMatrix& matrix, const QuantizedRows& x, Range groups, Range rows,
                                      float* output, int64_t stride) const {
  PackedTile tile = {};
  tile.form = matrix.form();
  tile.columns = matrix.columns();
  tile.rows_per_tile = x.rows_per_tile();
  float spill[kRowTile][kPackedRows];  // for a last group of fewer rows
  for (int64_t group = groups.begin; group < groups.end; ++group, output += kPackedRows) {
    tile.group = matrix.group(group);
    const int64_t width = std::min<int64_t>(kPackedRows, matrix.rows() - group * kPackedRows);
    for (int64_t row = rows.begin; row < rows.end; row += tile.row_count) {
      const int64_t place = row % tile.rows_per_tile;
      tile.row_count = static_cast<int>(std::min<int64_t>(tile.rows_per_tile - place, rows.end - row));
      tile.values = x.values(row / tile.rows_per_tile) + place * kActivationBlock;
      tile.blocks = x.blocks(row / tile.rows_per_tile) + place;
      for (int i = 0; i < tile.row_count; ++i) {
        tile.output[i] = width == kPackedRows ? output + (row - rows.begin + i) * stride : spill[i];
      }
      packed_product_(tile);
      if (width == kPackedRows) continue;
      for (int i = 0; i < tile.row_count; ++i) {
        std::copy(spill[i], spill[i] + width, output + (row - rows.begin + i) * stride);
      }
    }
  }
}

bool CpuBackend::KeepsGated(const Product& gate, const Product& up) const {
  const int64_t size = gate.weights->rows();
  return CpuWeights::From(*gate.weights).packed() != nullptr && CpuWeights::From(*up.weights).packed() != nullptr &&
         size % kActivationBlock == 0 && packed_columns_.count(size) > 0 && float_columns_.count(size) == 0;
}

void CpuBackend::GatedMatMul(const Product& gate, const Product& up, const Buffer& x, int32_t rows) {
  if (!KeepsGated(gate, up) || gated_of_ == &x) return Backend::GatedMatMul(gate, up, x, rows);
  const PackedMatrix& gate_matrix = *CpuWeights::From(*gate.weights).packed();
  const PackedMatrix& up_matrix = *CpuWeights::From(*up.weights).packed();
  const QuantizedRows& quantized = Quantized(x, rows, gate_matrix.columns());
  Overwrite(*gate.output);
  Overwrite(*up.output);
  gated_of_ = gate.output;
  gated_rows_ = rows;
  gated_.Resize(rows, gate_matrix.rows());
  const int64_t pairs = gate_matrix.rows() / kActivationBlock;
  if (const int64_t chunk = RowsAtOnce(rows, pool_.threads()); chunk > 0) {
    pool_.Run(rows, chunk, [&](int64_t begin, int64_t end, int) {
      MultiplyGated(gate_matrix, up_matrix, quantized, {0, pairs}, {begin, end});
    });
    return;
  }
  pool_.Run(pairs, GroupChunk(pairs, pool_.threads()), [&](int64_t begin, int64_t end, int) {
    MultiplyGated(gate_matrix, up_matrix, quantized, {begin, end}, {0, rows});
  });
}

void CpuBackend::MultiplyGated(const PackedMatrix& gate, const PackedMatrix& up, const QuantizedRows& x, Range pairs,
                               Range rows) {
  constexpr int64_t kWidth = kGatedGroups * kPackedRows;
  constexpr int64_t kPairs = kWidth / kActivationBlock;
  static_assert(kActivationBlock == 2 * kPackedRows);
  alignas(64) float gates[kRowsOfAThread * kWidth];
  alignas(64) float ups[kRowsOfAThread * kWidth];
  for (int64_t pair = pairs.begin; pair < pairs.end; pair += kPairs) {
    const int64_t count = std::min(kPairs, pairs.end - pair);
    const Range groups = {2 * pair, 2 * (pair + count)};
    const int32_t width = static_cast<int32_t>(count * kActivationBlock);
    for (int64_t row = rows.begin; row < rows.end; row += kRowsOfAThread) {
      const Range some = {row, std::min<int64_t>(row + kRowsOfAThread, rows.end)};
      MultiplyPackedGroups(gate, x, groups, some, gates, kWidth);
      MultiplyPackedGroups(up, x, groups, some, ups, kWidth);
      for (int64_t r = some.begin; r < some.end; ++r) {
        float* const gate_row = gates + (r - row) * kWidth;
        ops_.swiglu(ups + (r - row) * kWidth, width, gate_row);
        ops_.quantize(gate_row, r, pair, count, gated_);
      }
    }
  }
}

void CpuBackend::MultiplyFloat(const Product& product, const float* x, int32_t rows) {
  const WeightView& view = CpuWeights::From(*product.weights).view();
  float* output = Data(*product.output);
  pool_.Run(view.rows, /*chunk=*/16, [&](int64_t begin, int64_t end, int thread) {
    std::vector<float>& weights = scratch_[thread];
    if (static_cast<int64_t>(weights.size()) < view.columns) weights.resize(view.columns);
    for (int64_t o = begin; o < end; ++o) {
      DequantizeRow(view, o, weights.data());
      for (int32_t r = 0; r < rows; ++r) {
        output[r * view.rows + o] = ops_.dot(weights.data(), x + r * view.columns, view.columns);
      }
    }
  });
}

std::byte* CpuBackend::LayerOf(int32_t block, int32_t layer) {
  return kv_->data() + block * kv_block_bytes() + layer * kv_shape_.layer_elements() * kv_element_bytes();
}

void CpuBackend::Store(const Place& place, int32_t layer, const float* key, const float* value, float* scratch) {
  const int32_t size = kv_shape_.head_size;
  const int32_t all = kv_shape_.kv_head_count * size;
  const int64_t head_bytes = kv_shape_.head_elements() * kv_element_bytes();
  std::byte* const keys = LayerOf(place.block, layer);
  std::byte* values = keys + kv_shape_.kv_head_count * head_bytes + int64_t{place.slot} * size * kv_element_bytes();
  for (int32_t h = 0; h < kv_shape_.kv_head_count; ++h, values += head_bytes) {
    ops_.convert(value + h * size, size, kv_type(), values);
  }
  ops_.convert(key, all, kv_type(), reinterpret_cast<std::byte*>(scratch));
  // Element i of all heads follow each other in the block too.
  const auto scatter = [&](const auto* from, auto* to) {
    for (int32_t i = 0; i < all; ++i) to[int64_t{i} * kv_shape_.block_tokens + place.slot] = from[i];
  };
  if (kv_type() == KvType::kF32) {
    scatter(scratch, reinterpret_cast<float*>(keys));
  } else {
    scatter(reinterpret_cast<const uint16_t*>(scratch), reinterpret_cast<uint16_t*>(keys));
  }
}

void CpuBackend::BeginStep(absl::Span<const Segment> segments) {
  segments_ = segments;
  // Buffers may have come and gone since the last step.
  quantized_of_ = nullptr;
  gated_of_ = nullptr;
  if (segments.empty()) return;
  const int32_t rows = segments.back().first_row + segments.back().row_count;
  places_.resize(rows);
  std::vector<int32_t> positions(rows);
  for (const Segment& segment : segments) {
    for (int32_t i = 0; i < segment.row_count; ++i) {
      const int32_t position = segment.first_position + i;
      positions[segment.first_row + i] = position;
      places_[segment.first_row + i] = {segment.blocks[position / kv_shape_.block_tokens],
                                        position % kv_shape_.block_tokens};
    }
  }
  // The same for every layer.
  const int64_t pairs = static_cast<int64_t>(frequencies_.size());
  turns_.resize(rows * pairs);
  pool_.Run(rows, kRowChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t pair = 0; pair < pairs; ++pair) {
        const float angle = static_cast<float>(positions[row]) * frequencies_[pair];
        const float cosine = std::cos(angle);
        const float sine = std::sin(angle);
        turns_[row * pairs + pair] = {{cosine, cosine}, {-sine, sine}};
      }
    }
  });
}

void CpuBackend::RopeAndStore(int32_t layer, int32_t head_count, Buffer& q, Buffer& k, const Buffer& v) {
  float* const queries = Overwrite(q);
  float* const all_keys = Overwrite(k);
  const int32_t size = kv_shape_.head_size;
  const int32_t kv_size = kv_shape_.kv_head_count * size;
  pool_.Run(static_cast<int64_t>(places_.size()), kRowChunk, [&](int64_t begin, int64_t end, int thread) {
    std::vector<float>& scratch = scratch_[thread];
    if (static_cast<int32_t>(scratch.size()) < kv_size) scratch.resize(kv_size);
    for (int64_t row = begin; row < end; ++row) {
      float* key = all_keys + row * kv_size;
      const Turn* turns = turns_.data() + row * (size / 2);
      ops_.rotate(turns, head_count, size, queries + row * head_count * size);
      ops_.rotate(turns, kv_shape_.kv_head_count, size, key);
      Store(places_[row], layer, key, Data(v) + row * kv_size, scratch.data());
    }
  });
}

void CpuBackend::Attention(int32_t layer, int32_t head_count, const Buffer& q, Buffer& output) {
  const KvLayer kv = {kv_type(), LayerOf(0, layer), kv_block_bytes(), kv_shape_};
  attention_.Run(segments_, kv, head_count, Data(q), Overwrite(output));
}

void CpuBackend::SwiGlu(const Buffer& up, int32_t rows, int32_t size, Buffer& gate) {
  float* const to = Overwrite(gate);
  const bool quantize = BeginQuantized(gate, rows, size);
  pool_.Run(rows, kRowChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      ops_.swiglu(Data(up) + r * size, size, to + r * size);
      if (quantize) ops_.quantize(to + r * size, r, 0, size / kActivationBlock, quantized_);
    }
  });
}

void CpuBackend::AddBias(const Weights& bias, int32_t rows, Buffer& x) {
  const std::vector<float>& values = CpuWeights::From(bias).vector();
  float* element = Overwrite(x);
  for (int32_t r = 0; r < rows; ++r) {
    for (const float value : values) *element++ += value;
  }
}

void CpuBackend::Add(const Buffer& y, int64_t count, Buffer& x) { ops_.add(Data(y), count, Overwrite(x)); }

void CpuBackend::GatherRows(const Buffer& x, absl::Span<const int32_t> indices, int32_t size, Buffer& output) {
  float* const to = Overwrite(output);
  for (size_t n = 0; n < indices.size(); ++n) {
    std::copy_n(Data(x) + int64_t{indices[n]} * size, size, to + n * size);
  }
}

}  // namespace fermata::kernels
