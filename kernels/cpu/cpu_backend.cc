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

void Rotate(const float* frequencies, int32_t position, int32_t head_count, int32_t head_size, float* heads) {
  for (int32_t i = 0; i < head_size / 2; ++i) {
    const float angle = static_cast<float>(position) * frequencies[i];
    const float cosine = std::cos(angle);
    const float sine = std::sin(angle);
    for (int32_t h = 0; h < head_count; ++h) {
      float* pair = heads + int64_t{h} * head_size + 2 * i;
      const float x = pair[0];
      const float y = pair[1];
      pair[0] = x * cosine - y * sine;
      pair[1] = x * sine + y * cosine;
    }
  }
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
      ops_(options.exact ? PlainRowOps() : VectorRowOps()),
      packed_product_(ProductFor(options.instruction_set)),
      pool_(options.threads),
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
    for (int64_t r = begin; r < end; ++r) quantized_.Quantize(x + r * columns, r);
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
  float spill[kRowTile][kPackedRows];  // for a last group of fewer rows
  for (int64_t group = begin; group < end; ++group) {
    tile.group = matrix.group(group);
    const int64_t first_output = group * kPackedRows;
    const int64_t width = std::min<int64_t>(kPackedRows, matrix.rows() - first_output);
    for (int32_t row = 0; row < rows; row += kRowTile) {
      tile.row_count = std::min(kRowTile, rows - row);
      for (int i = 0; i < tile.row_count; ++i) {
        tile.values[i] = quantized_.row_values(row + i);
        tile.scales[i] = quantized_.row_scales(row + i);
        tile.sums[i] = quantized_.row_sums(row + i);
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

float* CpuBackend::KvSlot(int32_t block, int32_t layer, int value, int32_t kv_head, int32_t slot) {
  return Data(*kv_) + block * kv_shape_.block_elements() + layer * kv_shape_.layer_elements() +
         (value * kv_shape_.kv_head_count + kv_head) * kv_shape_.head_elements() + int64_t{slot} * kv_shape_.head_size;
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
        Rotate(frequencies_.data(), position, head_count, size, Data(q) + row * head_count * size);
        Rotate(frequencies_.data(), position, kv_heads, size, key);
        const int32_t block = segment.blocks[position / kv_shape_.block_tokens];
        const int32_t slot = position % kv_shape_.block_tokens;
        for (int32_t h = 0; h < kv_heads; ++h) {
          std::copy_n(key + h * size, size, KvSlot(block, layer, /*value=*/0, h, slot));
          std::copy_n(value + h * size, size, KvSlot(block, layer, /*value=*/1, h, slot));
        }
      }
    });
  }
}

void CpuBackend::Attention(int32_t layer, int32_t head_count, const Buffer& q, Buffer& output) {
  const int32_t size = kv_shape_.head_size;
  const int32_t group = head_count / kv_shape_.kv_head_count;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  // Every (row, head) is a piece of its own: how pieces are shared out changes no bit.
  const Segment& last = segments_.back();
  const int64_t rows = last.first_row + last.row_count;
  pool_.Run(rows * head_count, /*chunk=*/1, [&](int64_t begin, int64_t end, int thread) {
    std::vector<float>& scores = scratch_[thread];
    for (int64_t piece = begin; piece < end; ++piece) {
      const int32_t row = static_cast<int32_t>(piece / head_count);
      const int32_t h = static_cast<int32_t>(piece % head_count);
      const auto after = std::upper_bound(segments_.begin(), segments_.end(), row,
                                          [](int32_t r, const Segment& s) { return r < s.first_row; });
      const Segment& segment = *(after - 1);
      const int32_t count = segment.first_position + (row - segment.first_row) + 1;
      if (static_cast<int32_t>(scores.size()) < count) scores.resize(count);
      const PagedHead head = {KvSlot(0, layer, /*value=*/0, h / group, 0),
                              KvSlot(0, layer, /*value=*/1, h / group, 0),
                              kv_shape_.block_elements(),
                              segment.blocks,
                              kv_shape_.block_tokens,
                              size};
      const int64_t offset = (int64_t{row} * head_count + h) * size;
      ops_.attention(Data(q) + offset, head, count, scale, scores.data(), Data(output) + offset);
    }
  });
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
