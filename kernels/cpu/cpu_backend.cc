#include "kernels/cpu/cpu_backend.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/packed_matrix.h"

namespace fermata::kernels {
namespace {

// Pages straight from the system: zero, and taken only when first touched, so that a large KV pool costs what is used
// of it.
class MappedBuffer : public Buffer {
 public:
  MappedBuffer(void* data, size_t size) : data_(data), size_(size) {}
  ~MappedBuffer() override { munmap(data_, size_); }
  float* data() const { return static_cast<float*>(data_); }

 private:
  void* data_;
  size_t size_;
};

// Groups of 16 weight rows that a thread takes at a time: enough to hide the hand-over, few enough to share evenly.
int64_t GroupChunk(int64_t group_count, int threads) { return std::max<int64_t>(1, group_count / (threads * 8)); }

}  // namespace

void CpuBackend::Rotate(const Turn* turns, int32_t head_count, int32_t head_size, float* heads) {
  for (int32_t h = 0; h < head_count; ++h, heads += head_size) {
    for (int32_t i = 0; i < head_size / 2; ++i) {
      const float x = heads[2 * i];
      const float y = heads[2 * i + 1];
      heads[2 * i] = x * turns[i].cosine - y * turns[i].sine;
      heads[2 * i + 1] = x * turns[i].sine + y * turns[i].cosine;
    }
  }
}

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
      ops_(options.exact ? PlainRowOps() : VectorRowOps()),
      packed_product_(ProductFor(options.instruction_set)),
      pool_(options.threads),
      attention_(ops_, pool_),
      scratch_(options.threads) {}

CpuBackendOptions CpuBackend::BestOptions(int threads) {
  return {.threads = threads, .exact = false, .instruction_set = SupportedInstructionSets().back()};
}

absl::StatusOr<std::unique_ptr<Weights>> CpuBackend::Prepare(const WeightView& view) {
  const bool pack = !options_.exact && view.rows > 1 && PackedMatrix::CanPack(view.type);
  std::unique_ptr<PackedMatrix> packed = pack ? PackedMatrix::Pack(view) : nullptr;
  if (pack && packed == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory to pack a matrix of ", view.rows, " x ", view.columns));
  }
  return std::make_unique<CpuWeights>(view, std::move(packed));
}

float* CpuBackend::Data(Buffer& buffer) { return static_cast<MappedBuffer&>(buffer).data(); }
const float* CpuBackend::Data(const Buffer& buffer) { return static_cast<const MappedBuffer&>(buffer).data(); }

absl::StatusOr<std::unique_ptr<Buffer>> CpuBackend::Allocate(int64_t element_count) {
  const size_t size = static_cast<size_t>(std::max<int64_t>(element_count, 1)) * sizeof(float);
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", size, " bytes"));
  return std::make_unique<MappedBuffer>(data, size);
}

absl::Status CpuBackend::AllocateKv(const KvShape& shape) {
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = Allocate(shape.block_count * shape.block_elements());
  if (!buffer.ok()) {
    return absl::ResourceExhaustedError(absl::StrCat("the KV cache of ", shape.block_count, " blocks of ",
                                                     shape.block_tokens, " tokens: ", buffer.status().message()));
  }
  kv_ = *std::move(buffer);
  kv_shape_ = shape;
  return absl::OkStatus();
}

int64_t CpuBackend::kv_block_bytes() const { return kv_shape_.block_elements() * static_cast<int64_t>(sizeof(float)); }

absl::Status CpuBackend::CopyKvToHost(absl::Span<const KvBlockCopy> copies) {
  for (const KvBlockCopy& copy : copies) {
    std::memcpy(copy.host, Data(*kv_) + copy.block * kv_shape_.block_elements(), kv_block_bytes());
  }
  return absl::OkStatus();
}

absl::Status CpuBackend::CopyKvFromHost(absl::Span<const KvBlockCopy> copies) {
  for (const KvBlockCopy& copy : copies) {
    std::memcpy(Data(*kv_) + copy.block * kv_shape_.block_elements(), copy.host, kv_block_bytes());
  }
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
  for (size_t r = 0; r < tokens.size(); ++r) DequantizeRow(view, tokens[r], Data(output) + r * view.columns);
}

void CpuBackend::RmsNorm(const Weights& weight, float epsilon, const Buffer& x, int32_t rows, Buffer& output) {
  const float* from = Data(x);
  float* to = Data(output);
  const std::vector<float>& factors = CpuWeights::From(weight).vector();
  const int32_t size = static_cast<int32_t>(factors.size());
  pool_.Run(rows, /*chunk=*/8, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) ops_.rms_norm(from + r * size, factors.data(), epsilon, size, to + r * size);
  });
}

void CpuBackend::AddRmsNorm(const Weights& weight, float epsilon, const Buffer& delta, int32_t rows, Buffer& x,
                            Buffer& output) {
  Add(delta, int64_t{rows} * weight.columns(), x);
  RmsNorm(weight, epsilon, x, rows, output);
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
  if (!packed.empty()) MultiplyPacked(packed, Data(x), rows);
}

void CpuBackend::MultiplyPacked(absl::Span<const Product> products, const float* x, int32_t rows) {
  const int64_t columns = products[0].weights->columns();
  quantized_.Resize(rows, columns);
  pool_.Run(rows, /*chunk=*/4, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) ops_.quantize(x + r * columns, r, quantized_);
  });
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
      if (from < to) MultiplyPackedGroups(products[i], rows, from - first, to - first);
    }
  });
}

void CpuBackend::MultiplyPackedGroups(const Product& product, int32_t rows, int64_t begin, int64_t end) {
  const PackedMatrix& matrix = *CpuWeights::From(*product.weights).packed();
  PackedTile tile = {};
  tile.form = matrix.form();
  tile.columns = matrix.columns();
  tile.rows_per_tile = quantized_.rows_per_tile();
  float spill[kRowTile][kPackedRows];  // for a last group of fewer rows
  for (int64_t group = begin; group < end; ++group) {
    tile.group = matrix.group(group);
    const int64_t first_output = group * kPackedRows;
    const int64_t width = std::min<int64_t>(kPackedRows, matrix.rows() - first_output);
    for (int32_t row = 0; row < rows; row += kRowTile) {
      tile.row_count = std::min(kRowTile, rows - row);
      tile.values = quantized_.values(row / kRowTile);
      tile.blocks = quantized_.blocks(row / kRowTile);
      for (int i = 0; i < tile.row_count; ++i) {
        tile.output[i] =
            width == kPackedRows ? Data(*product.output) + (row + i) * matrix.rows() + first_output : spill[i];
      }
      packed_product_(tile);
      if (width == kPackedRows) continue;
      for (int i = 0; i < tile.row_count; ++i) {
        std::copy(spill[i], spill[i] + width, Data(*product.output) + (row + i) * matrix.rows() + first_output);
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

float* CpuBackend::LayerOf(int32_t block, int32_t layer) {
  return Data(*kv_) + block * kv_shape_.block_elements() + layer * kv_shape_.layer_elements();
}

void CpuBackend::Store(int32_t block, int32_t layer, int32_t slot, const float* key, const float* value) {
  const int32_t size = kv_shape_.head_size;
  float* keys = LayerOf(block, layer);
  float* values = keys + kv_shape_.kv_head_count * kv_shape_.head_elements() + int64_t{slot} * size;
  for (int32_t h = 0; h < kv_shape_.kv_head_count; ++h, keys += kv_shape_.head_elements()) {
    for (int32_t i = 0; i < size; ++i) keys[int64_t{i} * kv_shape_.block_tokens + slot] = key[h * size + i];
    std::copy_n(value + h * size, size, values + h * kv_shape_.head_elements());
  }
}

void CpuBackend::BeginStep(absl::Span<const Segment> segments) {
  segments_ = segments;
  if (segments.empty()) return;
  // The same for every layer.
  const int64_t pairs = static_cast<int64_t>(frequencies_.size());
  const Segment& last = segments.back();
  turns_.resize((last.first_row + last.row_count) * pairs);
  for (const Segment& segment : segments) {
    pool_.Run(segment.row_count, /*chunk=*/32, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const float position = static_cast<float>(segment.first_position + i);
        for (int64_t pair = 0; pair < pairs; ++pair) {
          const float angle = position * frequencies_[pair];
          turns_[(segment.first_row + i) * pairs + pair] = {std::cos(angle), std::sin(angle)};
        }
      }
    });
  }
}

void CpuBackend::RopeAndStore(int32_t layer, int32_t head_count, Buffer& q, Buffer& k, const Buffer& v) {
  const int32_t size = kv_shape_.head_size;
  const int32_t kv_heads = kv_shape_.kv_head_count;
  for (const Segment& segment : segments_) {
    pool_.Run(segment.row_count, /*chunk=*/16, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = segment.first_row + i;
        const int32_t position = segment.first_position + static_cast<int32_t>(i);
        float* key = Data(k) + row * kv_heads * size;
        const float* value = Data(v) + row * kv_heads * size;
        const Turn* turns = turns_.data() + row * (size / 2);
        Rotate(turns, head_count, size, Data(q) + row * head_count * size);
        Rotate(turns, kv_heads, size, key);
        Store(segment.blocks[position / kv_shape_.block_tokens], layer, position % kv_shape_.block_tokens, key, value);
      }
    });
  }
}

void CpuBackend::Attention(int32_t layer, int32_t head_count, const Buffer& q, Buffer& output) {
  const KvLayer kv = {LayerOf(0, layer), kv_shape_.block_elements(), kv_shape_};
  attention_.Run(segments_, kv, head_count, Data(q), Data(output));
}

void CpuBackend::SwiGlu(const Buffer& up, int32_t rows, int32_t size, Buffer& gate) {
  pool_.Run(rows, /*chunk=*/2, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) ops_.swiglu(Data(up) + r * size, size, Data(gate) + r * size);
  });
}

void CpuBackend::AddBias(const Weights& bias, int32_t rows, Buffer& x) {
  const std::vector<float>& values = CpuWeights::From(bias).vector();
  float* element = Data(x);
  for (int32_t r = 0; r < rows; ++r) {
    for (const float value : values) *element++ += value;
  }
}

void CpuBackend::Add(const Buffer& y, int64_t count, Buffer& x) {
  const float* from = Data(y);
  float* to = Data(x);
  for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

void CpuBackend::GatherRows(const Buffer& x, absl::Span<const int32_t> indices, int32_t size, Buffer& output) {
  for (size_t n = 0; n < indices.size(); ++n) {
    std::copy_n(Data(x) + int64_t{indices[n]} * size, size, Data(output) + n * size);
  }
}

}  // namespace fermata::kernels
