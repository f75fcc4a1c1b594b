#include "engine/model/gguf_file.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/numeric/bits.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kVersion = 3;
constexpr uint32_t kVersionInOtherByteOrder = 0x03000000;
constexpr int64_t kDefaultAlignment = 32;
constexpr int64_t kMaxAlignment = 1 << 20;
constexpr uint32_t kMaxDimensions = 4;
// A key takes at least a length, a type and a byte; a tensor more. Bounds what a header may claim.
constexpr uint64_t kMinEntryBytes = 13;

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  std::unique_ptr<GgufFile> gguf(new GgufFile(path, *std::move(file)));
  const absl::Status parsed = gguf->Parse();
  if (!parsed.ok()) return absl::Status(parsed.code(), absl::StrCat(path, ": ", parsed.message()));
  return gguf;
}

absl::Status GgufFile::Parse() {
  GgufCursor cursor(file_->bytes());
  const absl::StatusOr<uint32_t> magic = cursor.Read<uint32_t>();
  if (!magic.ok() || *magic != kMagic) {
    const auto head = file_->bytes().subspan(0, std::min<size_t>(4, file_->bytes().size()));
    return absl::InvalidArgumentError(absl::StrCat(
        "not a GGUF file: it begins with \"",
        absl::CHexEscape(absl::string_view(reinterpret_cast<const char*>(head.data()), head.size())), "\""));
  }
  const absl::StatusOr<uint32_t> version = cursor.Read<uint32_t>();
  if (!version.ok()) return version.status();
  if (*version == kVersionInOtherByteOrder) return absl::UnimplementedError("GGUF in big-endian order is not served");
  if (*version != kVersion) {
    return absl::UnimplementedError(absl::StrCat("GGUF version ", *version, " is not served; version 3 is"));
  }
  const absl::StatusOr<uint64_t> tensor_count = cursor.Read<uint64_t>();
  if (!tensor_count.ok()) return tensor_count.status();
  const absl::StatusOr<uint64_t> value_count = cursor.Read<uint64_t>();
  if (!value_count.ok()) return value_count.status();
  const uint64_t most_entries = cursor.left() / kMinEntryBytes;
  if (*tensor_count > most_entries || *value_count > most_entries) {
    return absl::InvalidArgumentError(absl::StrCat("truncated: ", *tensor_count, " tensors and ", *value_count,
                                                   " values do not fit in ", cursor.left(), " bytes"));
  }
  absl::Status status = ParseMetadata(cursor, *value_count);
  if (!status.ok()) return status;
  std::vector<uint64_t> offsets;
  for (uint64_t i = 0; i < *tensor_count; ++i) {
    status = ParseTensor(cursor, offsets);
    if (!status.ok()) return status;
  }
  return PlaceTensors(cursor.position(), offsets);
}

absl::Status GgufFile::ParseMetadata(GgufCursor& cursor, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    absl::StatusOr<std::string> key = cursor.ReadString();
    if (!key.ok()) return key.status();
    absl::StatusOr<GgufValue> value = cursor.ReadValue();
    if (!value.ok()) {
      return absl::Status(value.status().code(),
                          absl::StrCat("key \"", absl::CHexEscape(*key), "\": ", value.status().message()));
    }
    if (!metadata_.try_emplace(*key, *std::move(value)).second) {
      return absl::InvalidArgumentError(absl::StrCat("key \"", absl::CHexEscape(*key), "\" stands twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status GgufFile::ParseTensor(GgufCursor& cursor, std::vector<uint64_t>& offsets) {
  GgufTensor tensor;
  absl::StatusOr<std::string> name = cursor.ReadString();
  if (!name.ok()) return name.status();
  tensor.name = *std::move(name);
  const std::string shown = absl::StrCat("tensor \"", absl::CHexEscape(tensor.name), "\"");
  const absl::StatusOr<uint32_t> dimensions = cursor.Read<uint32_t>();
  if (!dimensions.ok()) return dimensions.status();
  if (*dimensions < 1 || *dimensions > kMaxDimensions) {
    return absl::InvalidArgumentError(absl::StrCat(shown, " has ", *dimensions, " dimensions; 1 to 4 are possible"));
  }
  tensor.element_count = 1;
  for (uint32_t d = 0; d < *dimensions; ++d) {
    const absl::StatusOr<uint64_t> size = cursor.Read<uint64_t>();
    if (!size.ok()) return size.status();
    // 2^56 elements: so that no product below overflows.
    if (*size < 1 || *size > (uint64_t{1} << 56) / static_cast<uint64_t>(tensor.element_count)) {
      return absl::InvalidArgumentError(absl::StrCat(shown, " has a dimension of ", *size));
    }
    tensor.element_count *= static_cast<int64_t>(*size);
    tensor.shape.push_back(static_cast<int64_t>(*size));
  }
  const absl::StatusOr<uint32_t> type = cursor.Read<uint32_t>();
  if (!type.ok()) return type.status();
  const std::optional<TensorTypeInfo> info = FindTensorType(*type);
  if (!info.has_value())
    return absl::UnimplementedError(absl::StrCat(shown, " has type number ", *type, ", which is not served"));
  tensor.type = info->type;
  if (tensor.shape[0] % info->block_elements != 0) {
    return absl::InvalidArgumentError(absl::StrCat(shown, " has rows of ", tensor.shape[0], " elements; ", info->name,
                                                   " needs a multiple of ", info->block_elements));
  }
  const absl::StatusOr<uint64_t> offset = cursor.Read<uint64_t>();
  if (!offset.ok()) return offset.status();
  offsets.push_back(*offset);
  if (!tensor_index_.try_emplace(tensor.name, tensors_.size()).second) {
    return absl::InvalidArgumentError(absl::StrCat(shown, " stands twice"));
  }
  tensors_.push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::Status GgufFile::PlaceTensors(size_t header_size, absl::Span<const uint64_t> offsets) {
  int64_t alignment = kDefaultAlignment;
  if (Has("general.alignment")) {
    const absl::StatusOr<int64_t> given = GetInt("general.alignment");
    if (!given.ok() || *given < 1 || *given > kMaxAlignment || !absl::has_single_bit(static_cast<uint64_t>(*given))) {
      return absl::InvalidArgumentError("general.alignment is not a power of two up to 1048576");
    }
    alignment = *given;
  }
  const uint64_t base = (header_size + alignment - 1) / alignment * alignment;
  const uint64_t file_size = file_->bytes().size();
  for (size_t i = 0; i < tensors_.size(); ++i) {
    GgufTensor& tensor = tensors_[i];
    const TensorTypeInfo& info = InfoOf(tensor.type);
    const uint64_t size = static_cast<uint64_t>(tensor.element_count / info.block_elements) * info.block_bytes;
    if (offsets[i] % alignment != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor \"", absl::CHexEscape(tensor.name), "\" is not aligned to ", alignment, " bytes"));
    }
    if (base > file_size || offsets[i] > file_size - base || size > file_size - base - offsets[i]) {
      return absl::InvalidArgumentError(absl::StrCat("truncated: tensor \"", absl::CHexEscape(tensor.name), "\" needs ",
                                                     size, " bytes at byte ", base, " + ", offsets[i],
                                                     ", the file has ", file_size));
    }
    tensor.data = file_->bytes().subspan(base + offsets[i], size);
  }
  return absl::OkStatus();
}

const GgufTensor* GgufFile::FindTensor(absl::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

absl::Status GgufFile::Missing(absl::string_view key, absl::string_view kind) const {
  if (!Has(key)) return absl::NotFoundError(absl::StrCat(path_, ": key \"", key, "\" is missing"));
  return absl::InvalidArgumentError(absl::StrCat(path_, ": key \"", key, "\" is not ", kind));
}

}  // namespace fermata
