#include "tests/fakes/gguf_writer.h"

#include <cstdlib>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "glog/logging.h"
#include "gtest/gtest.h"

namespace fermata {
namespace {

constexpr uint32_t kUint32 = 4;
constexpr uint32_t kInt32 = 5;
constexpr uint32_t kFloat32 = 6;
constexpr uint32_t kBool = 7;
constexpr uint32_t kString = 8;
constexpr uint32_t kArray = 9;
constexpr size_t kAlignment = 32;

template <typename T>
void Append(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendString(absl::string_view text, std::string* out) {
  Append<uint64_t>(text.size(), out);
  out->append(text.data(), text.size());
}

void Pad(std::string* out) { out->resize((out->size() + kAlignment - 1) / kAlignment * kAlignment); }

}  // namespace

void GgufWriter::AddKey(absl::string_view key, uint32_t type) {
  AppendString(key, &metadata_);
  Append(type, &metadata_);
  ++value_count_;
}

void GgufWriter::AddInt(absl::string_view key, uint32_t value) {
  AddKey(key, kUint32);
  Append(value, &metadata_);
}

void GgufWriter::AddFloat(absl::string_view key, float value) {
  AddKey(key, kFloat32);
  Append(value, &metadata_);
}

void GgufWriter::AddBool(absl::string_view key, bool value) {
  AddKey(key, kBool);
  Append<uint8_t>(value ? 1 : 0, &metadata_);
}

void GgufWriter::AddString(absl::string_view key, absl::string_view value) {
  AddKey(key, kString);
  AppendString(value, &metadata_);
}

void GgufWriter::AddStrings(absl::string_view key, const std::vector<std::string>& values) {
  AddKey(key, kArray);
  Append(kString, &metadata_);
  Append<uint64_t>(values.size(), &metadata_);
  for (const std::string& value : values) AppendString(value, &metadata_);
}

void GgufWriter::AddInts(absl::string_view key, const std::vector<int32_t>& values) {
  AddKey(key, kArray);
  Append(kInt32, &metadata_);
  Append<uint64_t>(values.size(), &metadata_);
  for (const int32_t value : values) Append(value, &metadata_);
}

void GgufWriter::AddTensor(absl::string_view name, TensorType type, const std::vector<int64_t>& shape,
                           std::string data) {
  tensors_.push_back({std::string(name), type, shape, std::move(data)});
}

std::string GgufWriter::Finish() const {
  std::string file = "GGUF";
  Append<uint32_t>(3, &file);
  Append<uint64_t>(tensors_.size(), &file);
  Append<uint64_t>(value_count_, &file);
  file += metadata_;
  std::string data;
  for (const Tensor& tensor : tensors_) {
    AppendString(tensor.name, &file);
    Append<uint32_t>(static_cast<uint32_t>(tensor.shape.size()), &file);
    for (const int64_t size : tensor.shape) Append<uint64_t>(size, &file);
    Append<uint32_t>(static_cast<uint32_t>(tensor.type), &file);
    Append<uint64_t>(data.size(), &file);
    data += tensor.data;
    Pad(&data);
  }
  Pad(&file);
  return file + data;
}

std::string WriteTestFile(const std::string& name, absl::string_view bytes) {
  // GoogleTest's folder is shared by the tests of a machine; Bazel gives each its own.
  const char* own = std::getenv("TEST_TMPDIR");
  const std::string path = absl::StrCat(own == nullptr ? testing::TempDir() : own, "/", name);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  CHECK(file.good()) << "cannot write " << path;
  return path;
}

}  // namespace fermata
