// Measures the products of packed weights alone: each stored form, each instruction set of this machine.
//
//   bazel run --config=opt //tools/bench:product_bench -- --types=Q4_1,IQ4_NL --outputs=1536 --columns=576
//
// Prints one JSON object a line: operations a second (two for a multiplication and an addition) and how fast the packed
// weights are read, as the median of --rounds rounds and the best, and what a weight takes. Small matrices stay in
// cache, large ones (--outputs=32768 --columns=2048) come from memory.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/huge_pages.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/quantized_rows.h"

ABSL_FLAG(std::vector<std::string>, types,
          std::vector<std::string>({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"}),
          "forms of the weights");
ABSL_FLAG(std::vector<std::string>, instructions, {}, "instruction sets; none: all of this machine");
ABSL_FLAG(std::vector<std::string>, rows, std::vector<std::string>({"1", "8"}), "rows of activations, 1 to 8 each");
ABSL_FLAG(int32_t, outputs, 1536, "rows of the weights");
ABSL_FLAG(int32_t, columns, 768, "columns of the weights, a multiple of 256");
ABSL_FLAG(int32_t, threads, 1, "threads, each with weights of its own");
ABSL_FLAG(int32_t, rounds, 7, "how often each is measured");

namespace fermata::kernels {
namespace {

struct NamedType {
  const char* name;
  WeightType type;
};

constexpr NamedType kTypes[] = {
    {"Q4_0", WeightType::kQ4_0}, {"Q4_1", WeightType::kQ4_1}, {"Q5_0", WeightType::kQ5_0},
    {"Q5_1", WeightType::kQ5_1}, {"Q8_0", WeightType::kQ8_0}, {"Q4_K", WeightType::kQ4_K},
    {"Q5_K", WeightType::kQ5_K}, {"Q6_K", WeightType::kQ6_K}, {"IQ4_NL", WeightType::kIQ4_NL}};

constexpr double kRoundOperations = 2e9;

// What one thread works on. Bytes below 0x30: whatever they are read as, scales are no infinities.
class Work {
 public:
  Work(WeightType type, int rows) : rows_(rows) {
    WeightView view = {type, absl::GetFlag(FLAGS_outputs), absl::GetFlag(FLAGS_columns), nullptr};
    std::mt19937 random(1);
    std::vector<uint8_t> bytes(view.rows * view.row_bytes());
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() % 0x30);
    view.data = bytes.data();
    matrix_ = PackedMatrix::Pack(view, arena_);
    x_.Resize(rows, view.columns);
    std::vector<float> row(view.columns);
    for (int r = 0; r < rows; ++r) {
      for (float& value : row) value = static_cast<float>(random() % 2001) - 1000.0f;
      QuantizeRow(row.data(), r, x_);
    }
    output_.resize(kRowTile * view.rows + kPackedRows);
  }

  const PackedMatrix* matrix() const { return matrix_.get(); }
  double operations() const { return 2.0 * static_cast<double>(matrix_->rows() * matrix_->columns() * rows_); }
  double packed_bytes() const {
    return static_cast<double>((matrix_->group(1) - matrix_->group(0)) * matrix_->group_count());
  }

  void Multiply(PackedProduct product) {
    PackedTile tile = {};
    tile.form = matrix_->form();
    tile.columns = matrix_->columns();
    tile.row_count = rows_;
    tile.rows_per_tile = x_.rows_per_tile();
    tile.values = x_.values(0);
    tile.blocks = x_.blocks(0);
    for (int64_t group = 0; group < matrix_->group_count(); ++group) {
      tile.group = matrix_->group(group);
      for (int r = 0; r < rows_; ++r) tile.output[r] = output_.data() + r * matrix_->rows() + group * kPackedRows;
      product(tile);
    }
  }

 private:
  int rows_;
  HugeArena arena_;
  std::unique_ptr<PackedMatrix> matrix_;
  QuantizedRows x_;
  std::vector<float> output_;
};

// Seconds that every thread takes for `passes` products of its own.
double Seconds(std::vector<std::unique_ptr<Work>>& works, PackedProduct product, int passes) {
  std::vector<std::thread> threads;
  const auto begin = std::chrono::steady_clock::now();
  for (std::unique_ptr<Work>& work : works) {
    threads.emplace_back([&work, product, passes] {
      for (int pass = 0; pass < passes; ++pass) work->Multiply(product);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

bool Measure(const NamedType& named, InstructionSet set, int rows) {
  std::vector<std::unique_ptr<Work>> works;
  for (int32_t t = 0; t < absl::GetFlag(FLAGS_threads); ++t) {
    works.push_back(std::make_unique<Work>(named.type, rows));
    if (works.back()->matrix() == nullptr) {
      absl::FPrintF(stderr, "no memory for the weights\n");
      return false;
    }
  }
  const double threads = static_cast<double>(works.size());
  const double scale = set == InstructionSet::kPlain ? 0.02 : 1.0;
  const int passes = std::max(1, static_cast<int>(scale * kRoundOperations / works[0]->operations()));
  Seconds(works, ProductFor(set), 1);
  std::vector<double> rates;
  for (int32_t round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    rates.push_back(threads * passes / Seconds(works, ProductFor(set), passes));
  }
  std::sort(rates.begin(), rates.end());
  const double median = rates[rates.size() / 2];
  const double weights = works[0]->operations() / 2 / rows;
  absl::PrintF(
      "{\"bench\":\"product\",\"type\":\"%s\",\"instructions\":\"%s\",\"rows\":%d,\"gop_per_s\":%.1f,"
      "\"best_gop_per_s\":%.1f,\"gb_per_s\":%.2f,\"bytes_per_weight\":%.3f}\n",
      named.name, Name(set), rows, median * works[0]->operations() / 1e9, rates.back() * works[0]->operations() / 1e9,
      median * works[0]->packed_bytes() / 1e9, works[0]->packed_bytes() / weights);
  std::fflush(stdout);
  return true;
}

bool Contains(const std::vector<std::string>& names, absl::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool MeasureAll() {
  const std::vector<std::string> sets = absl::GetFlag(FLAGS_instructions);
  for (const NamedType& named : kTypes) {
    if (!Contains(absl::GetFlag(FLAGS_types), named.name)) continue;
    for (const InstructionSet set : SupportedInstructionSets()) {
      if (!sets.empty() && !Contains(sets, Name(set))) continue;
      for (const std::string& word : absl::GetFlag(FLAGS_rows)) {
        int32_t rows = 0;
        if (!absl::SimpleAtoi(word, &rows) || rows < 1 || rows > kRowTile) {
          absl::FPrintF(stderr, "--rows has \"%s\"; allowed is 1 to %d\n", word, kRowTile);
          return false;
        }
        if (!Measure(named, set, rows)) return false;
      }
    }
  }
  return true;
}

}  // namespace
}  // namespace fermata::kernels

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const int32_t columns = absl::GetFlag(FLAGS_columns);
  if (columns < 256 || columns % 256 != 0 || absl::GetFlag(FLAGS_outputs) < 1 || absl::GetFlag(FLAGS_threads) < 1 ||
      absl::GetFlag(FLAGS_rounds) < 1) {
    absl::FPrintF(stderr, "--columns is a multiple of 256; --outputs, --threads and --rounds are at least 1\n");
    return 2;
  }
  return fermata::kernels::MeasureAll() ? 0 : 1;
}
