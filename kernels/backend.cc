#include "kernels/backend.h"

#include <utility>

namespace fermata::kernels {

absl::StatusOr<std::vector<std::unique_ptr<Weights>>> Backend::PrepareTogether(absl::Span<const WeightView> views) {
  std::vector<std::unique_ptr<Weights>> all;
  for (const WeightView& view : views) {
    absl::StatusOr<std::unique_ptr<Weights>> weights = Prepare(view);
    if (!weights.ok()) return weights.status();
    all.push_back(*std::move(weights));
  }
  return absl::StatusOr<std::vector<std::unique_ptr<Weights>>>(std::move(all));
}

absl::StatusOr<std::vector<std::unique_ptr<Buffer>>> Backend::AllocateTogether(int64_t rows,
                                                                               absl::Span<const int64_t> sizes) {
  std::vector<std::unique_ptr<Buffer>> all;
  for (const int64_t size : sizes) {
    absl::StatusOr<std::unique_ptr<Buffer>> buffer = Allocate(rows * size);
    if (!buffer.ok()) return buffer.status();
    all.push_back(*std::move(buffer));
  }
  return absl::StatusOr<std::vector<std::unique_ptr<Buffer>>>(std::move(all));
}

absl::Status Backend::TuneMatMul(absl::Span<const std::vector<Product>> alike, Buffer& x, int32_t max_rows) {
  return absl::OkStatus();
}

absl::Status Backend::TuneGatedMatMul(absl::Span<const std::vector<Product>> alike, Buffer& x, int32_t max_rows) {
  return TuneMatMul(alike, x, max_rows);
}

void Backend::GatedMatMul(const Product& gate, const Product& up, const Buffer& x, int32_t rows) {
  MatMul({gate, up}, x, rows);
  SwiGlu(*up.output, rows, static_cast<int32_t>(gate.weights->rows()), *gate.output);
}

absl::Status Backend::Record(int32_t rows, absl::FunctionRef<void()> ask) {
  return absl::UnimplementedError("this back end keeps no steps");
}

absl::StatusOr<absl::Span<const int32_t>> Backend::DrawTokens(const Buffer& logits, int32_t first_row, int32_t size,
                                                              absl::Span<const Draw> draws) {
  return absl::UnimplementedError("this back end draws no tokens");
}

absl::StatusOr<absl::Span<const Backend::SelectedToken>> Backend::SelectTokens(Buffer& logits, int32_t first_row,
                                                                               int32_t size,
                                                                               absl::Span<const Selection> selections,
                                                                               absl::Span<const LogitChange> changes) {
  return absl::UnimplementedError("this back end selects no tokens");
}

}  // namespace fermata::kernels
