// Goal: a safetensors folder loads whole, in shards or with made-up weights, and runs; whatever is wrong with one ends
// in an error that names it. Method: a tiny qwen2 folder with a tokenizer; its config.json edited; its header edited;
// bytes changed at random.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "engine/model/load_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/model/model_driver.h"

namespace fermata {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const char kQwen2[] = "tests/goldens/families/qwen2/";
const char kTokenizer[] = "tests/goldens/tokenizers/qwen2/tokenizer.json";

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void WriteBytes(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// A header and its data as a file.
std::string Safetensors(const json& header, const std::string& data) {
  const std::string text = header.dump();
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(text.size() >> (8 * i)));
  return bytes + text + data;
}

class HfFolderTest : public testing::Test {
 protected:
  // The golden model has 97 tokens, too few for a tokenizer of bytes: one with more of the same rows.
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    config_ = json::parse(ReadBytes(std::string(kQwen2) + "config.json"));
    const std::string bytes = ReadBytes(std::string(kQwen2) + "model.safetensors");
    size_t header_size = 0;
    for (int i = 0; i < 8; ++i) header_size |= size_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
    header_ = json::parse(bytes.substr(8, header_size));
    data_ = bytes.substr(8 + header_size);
    config_["vocab_size"] = 512;
    json& embedding = header_["model.embed_tokens.weight"];
    const std::string rows = data_.substr(embedding["data_offsets"][0].get<size_t>(), 97 * 64 * 2);
    embedding["shape"] = {512, 64};
    embedding["data_offsets"] = {data_.size(), data_.size() + 512 * 64 * 2};
    for (int n = 0; n < 6; ++n) data_ += rows;
    data_.resize(embedding["data_offsets"][1].get<size_t>());
    WriteBytes(folder_ + "/tokenizer.json", ReadBytes(kTokenizer));
    Write();
  }

  void Write() {
    WriteBytes(folder_ + "/config.json", config_.dump());
    WriteBytes(folder_ + "/model.safetensors", Safetensors(header_, data_));
  }

  absl::Status Load(bool dummy = false) {
    return LoadModel({.path = folder_, .dummy_weights = dummy, .threads = 1}).status();
  }

  void ExpectError(absl::StatusCode code, const std::string& part) {
    Write();
    const absl::Status status = Load();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    EXPECT_THAT(std::string(status.message()), HasSubstr(folder_));
  }

  std::string Output() {
    ModelDriver driver({.path = folder_});
    DrivenSequence sequence = driver.Begin({TokenId{1}, TokenId{2}, TokenId{3}}, /*capacity=*/32, /*top=*/1);
    driver.Run(sequence, /*chunk=*/256, /*output_count=*/8);
    std::string output;
    for (const int32_t token : OutputOf(sequence)) output += std::to_string(token) + " ";
    return output;
  }

  const std::string folder_ = testing::TempDir() + "/hf_folder";
  json config_;
  json header_;
  std::string data_;
};

TEST_F(HfFolderTest, ShardsGiveWhatOneFileGives) {
  const absl::StatusOr<LoadedModel> model = LoadModel({.path = folder_, .threads = 1});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->info.name, "hf_folder");
  EXPECT_EQ(model->info.family, "qwen2");
  EXPECT_EQ(model->info.quantization, "BF16");
  EXPECT_EQ(model->info.vocabulary_size, 512);
  const std::string whole = Output();

  json headers[2] = {json::object(), json::object()};
  json map = json::object();
  int n = 0;
  for (const auto& [name, entry] : header_.items()) {
    headers[n % 2][name] = entry;
    map[name] = n++ % 2 == 0 ? "a.safetensors" : "b.safetensors";
  }
  std::filesystem::remove(folder_ + "/model.safetensors");
  WriteBytes(folder_ + "/a.safetensors", Safetensors(headers[0], data_));
  WriteBytes(folder_ + "/b.safetensors", Safetensors(headers[1], data_));
  WriteBytes(folder_ + "/model.safetensors.index.json", json{{"weight_map", map}}.dump());
  EXPECT_EQ(Output(), whole);

  map.begin().value() = "../a.safetensors";
  WriteBytes(folder_ + "/model.safetensors.index.json", json{{"weight_map", map}}.dump());
  EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(HfFolderTest, DummyWeightsNeedAConfigurationAlone) {
  std::filesystem::remove(folder_ + "/model.safetensors");
  EXPECT_EQ(Load().code(), absl::StatusCode::kNotFound);
  std::filesystem::remove(folder_ + "/tokenizer.json");
  absl::StatusOr<LoadedModel> model = LoadModel({.path = folder_, .dummy_weights = true, .threads = 1});
  ASSERT_TRUE(model.ok()) << model.status();
  const auto tokens = model->tokenizer->Encode("ab", /*parse_special=*/true, /*add_bos=*/true);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_THAT(*tokens, testing::ElementsAre(TokenId{'a'}, TokenId{'b'}));
  EXPECT_TRUE(model->make_runner(8, 16, 16, 4).ok());
}

TEST_F(HfFolderTest, ConfigurationsThatAreNotServedAreNamed) {
  const json good = config_;
  const auto with = [&](const char* field, const json& value, absl::StatusCode code, const std::string& part) {
    config_ = good;
    config_[field] = value;
    ExpectError(code, part);
  };
  with("model_type", "gpt_oss", absl::StatusCode::kUnimplemented, "gpt_oss");
  with("use_sliding_window", true, absl::StatusCode::kUnimplemented, "sliding window of 16");
  with("rope_scaling", {{"rope_type", "yarn"}}, absl::StatusCode::kUnimplemented, "yarn");
  with("rope_scaling", {{"rope_type", "linear"}}, absl::StatusCode::kInvalidArgument, "factor");
  with("rope_scaling", 3, absl::StatusCode::kInvalidArgument, "rope scaling");
  with("hidden_act", "gelu", absl::StatusCode::kUnimplemented, "gelu");
  with("num_hidden_layers", 0, absl::StatusCode::kInvalidArgument, "num_hidden_layers");
  with("hidden_size", 18446744073709551615u, absl::StatusCode::kInvalidArgument, "hidden_size");
  with("num_key_value_heads", 3, absl::StatusCode::kInvalidArgument, "num_key_value_heads");
  with("eos_token_id", {1, 512}, absl::StatusCode::kInvalidArgument, "eos_token_id");
  with("tie_word_embeddings", false, absl::StatusCode::kNotFound, "lm_head");
}

TEST_F(HfFolderTest, BrokenTablesAreNamed) {
  const json good = header_;
  const std::string name = "model.norm.weight";
  const auto with = [&](const char* field, const json& value, const std::string& part) {
    header_ = good;
    header_[name][field] = value;
    ExpectError(absl::StatusCode::kInvalidArgument, part);
  };
  with("data_offsets", {data_.size(), data_.size() + 128}, "outside");
  with("data_offsets", {128, 0}, "outside");
  with("data_offsets", {-1, 127}, "two offsets");
  with("data_offsets", good["model.layers.0.input_layernorm.weight"]["data_offsets"], "overlap");
  with("shape", {63}, "the shape needs 126");
  with("shape", {18446744073709551615u, 2}, "counted");
  with("shape", {1099511627776, 1099511627776}, "counted");
  with("shape", {8, 8}, "wanted is [64]");
  with("dtype", "Q9", "Q9");
  header_ = good;
  header_.erase(name);
  ExpectError(absl::StatusCode::kNotFound, name);
  header_ = good;
  header_["model.strange.weight"] = {{"dtype", "F32"}, {"shape", {0}}, {"data_offsets", {0, 0}}};
  ExpectError(absl::StatusCode::kUnimplemented, "model.strange.weight");
}

TEST_F(HfFolderTest, ChangedBytesNeverCrash) {
  std::mt19937 random(5);
  int loaded = 0;
  int refused = 0;
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"}) {
    const std::string path = folder_ + "/" + name;
    const std::string bytes = ReadBytes(path);
    for (int i = 0; i < 150; ++i) {
      std::string changed = bytes;
      const size_t end = std::min<size_t>(changed.size(), 3000);
      for (int n = 0; n < 1 + i % 3; ++n) changed[random() % end] = static_cast<char>(random());
      if (i % 10 == 0) changed.resize(random() % changed.size());
      WriteBytes(path, changed);
      const absl::Status status = Load();
      ++(status.ok() ? loaded : refused);
      EXPECT_EQ(status.ok(), status.message().empty());
    }
    WriteBytes(path, bytes);
  }
  EXPECT_GT(refused, 100);
  EXPECT_GT(loaded, 5);
}

}  // namespace
}  // namespace fermata
