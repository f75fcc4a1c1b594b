#include "engine/model/safetensors_file.h"

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/model/json_reader.h"

namespace fermata {
namespace {

constexpr uint64_t kPrefixBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxDimensions = 8;

struct ElementSize {
  absl::string_view name;
  uint64_t bytes;
};

constexpr ElementSize kElementSizes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
                                         {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
                                         {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

// What an entry of the header says, checked against the size of the data.
absl::StatusOr<SafeTensor> ReadEntry(const nlohmann::json& entry, absl::Span<const uint8_t> data) {
  const nlohmann::json* type = FindField(entry, "dtype");
  const nlohmann::json* shape = FindField(entry, "shape");
  const nlohmann::json* offsets = FindField(entry, "data_offsets");
  if (type == nullptr || !type->is_string()) return absl::InvalidArgumentError("dtype is no string");
  if (shape == nullptr || !shape->is_array() || shape->size() > kMaxDimensions) {
    return absl::InvalidArgumentError(absl::StrCat("shape is no array of at most ", kMaxDimensions, " sizes"));
  }
  const auto is_offset = [](const nlohmann::json& value) { return value.is_number_unsigned(); };
  if (offsets == nullptr || !offsets->is_array() || offsets->size() != 2 || !is_offset((*offsets)[0]) ||
      !is_offset((*offsets)[1])) {
    return absl::InvalidArgumentError("data_offsets are not two offsets");
  }
  SafeTensor tensor;
  tensor.type_name = type->get<std::string>();
  const auto* size = std::find_if(std::begin(kElementSizes), std::end(kElementSizes),
                                  [&](const ElementSize& element) { return element.name == tensor.type_name; });
  if (size == std::end(kElementSizes)) {
    return absl::InvalidArgumentError(absl::StrCat("dtype \"", absl::CHexEscape(tensor.type_name), "\" is not known"));
  }
  uint64_t bytes = size->bytes;
  for (const nlohmann::json& dimension : *shape) {
    if (!dimension.is_number_unsigned()) return absl::InvalidArgumentError("shape has what is no size");
    const uint64_t extent = dimension.get<uint64_t>();
    if (extent > 0 && bytes > uint64_t{std::numeric_limits<int64_t>::max()} / extent) {
      return absl::InvalidArgumentError("shape has more elements than can be counted");
    }
    if (extent > uint64_t{std::numeric_limits<int64_t>::max()}) {
      return absl::InvalidArgumentError("shape has a size that cannot be counted");
    }
    bytes *= extent;
    tensor.shape.push_back(static_cast<int64_t>(extent));
  }
  tensor.begin = (*offsets)[0].get<uint64_t>();
  const uint64_t end = (*offsets)[1].get<uint64_t>();
  if (tensor.begin > end || end > data.size()) {
    return absl::InvalidArgumentError(absl::StrCat("data_offsets [", tensor.begin, ", ", end,
                                                   "] lie outside of the file's ", data.size(), " bytes of data"));
  }
  if (end - tensor.begin != bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("data_offsets hold ", end - tensor.begin, " bytes, the shape needs ", bytes));
  }
  tensor.data = data.subspan(tensor.begin, bytes);
  return absl::StatusOr<SafeTensor>(std::move(tensor));
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  absl::StatusOr<std::unique_ptr<MappedFile>> mapped = MappedFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile(path, *std::move(mapped)));
  absl::Status status = file->Parse();
  if (status.ok()) status = file->CheckOverlaps();
  if (!status.ok()) return status;
  return absl::StatusOr<std::unique_ptr<SafetensorsFile>>(std::move(file));
}

absl::Status SafetensorsFile::Parse() {
  const absl::Span<const uint8_t> bytes = file_->bytes();
  if (bytes.size() < kPrefixBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": is too short to be a safetensors file"));
  }
  uint64_t header_size = 0;
  for (uint64_t i = 0; i < kPrefixBytes; ++i) header_size |= uint64_t{bytes[i]} << (8 * i);
  if (header_size > kMaxHeaderBytes || header_size > bytes.size() - kPrefixBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": the header's size is ", header_size, "; the file has ",
                                                   bytes.size(), " bytes, allowed are ", kMaxHeaderBytes));
  }
  const absl::string_view header(reinterpret_cast<const char*>(bytes.data()) + kPrefixBytes, header_size);
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(header, absl::StrCat(path_, ": the header"));
  if (!json.ok()) return json.status();
  for (const auto& [name, entry] : json->items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<SafeTensor> tensor = ReadEntry(entry, bytes.subspan(kPrefixBytes + header_size));
    if (!tensor.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": tensor \"", absl::CHexEscape(name), "\": ", tensor.status().message()));
    }
    tensors_.emplace(name, *std::move(tensor));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::CheckOverlaps() const {
  std::vector<std::pair<const std::string*, const SafeTensor*>> order;
  for (const auto& [name, tensor] : tensors_) {
    if (!tensor.data.empty()) order.push_back({&name, &tensor});
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.second->begin < b.second->begin; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1].second->begin + order[i - 1].second->data.size() <= order[i].second->begin) continue;
    return absl::InvalidArgumentError(absl::StrCat(path_, ": tensors \"", absl::CHexEscape(*order[i - 1].first),
                                                   "\" and \"", absl::CHexEscape(*order[i].first), "\" overlap"));
  }
  return absl::OkStatus();
}

std::optional<TensorType> ServedTensorType(absl::string_view name) {
  if (name == "F32") return TensorType::kF32;
  if (name == "F16") return TensorType::kF16;
  if (name == "BF16") return TensorType::kBF16;
  return std::nullopt;
}

}  // namespace fermata
