// The weights of a folder with safetensors files, in one piece or in shards.

#ifndef FERMATA_ENGINE_MODEL_SAFETENSORS_WEIGHTS_H_
#define FERMATA_ENGINE_MODEL_SAFETENSORS_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "engine/model/released_later.h"
#include "engine/model/safetensors_file.h"
#include "engine/model/weight_source.h"

namespace fermata {

// Tensors are the files' own memory: this must outlive what is made of them if the device keeps views. When later ones
// are taken, earlier ones' pages are given back, as by GgufWeights.
class SafetensorsWeights : public WeightSource {
 public:
  // model.safetensors, or the shards that model.safetensors.index.json names. `tied`: an output matrix that is in the
  // file all the same is ignored. NOT_FOUND, or INVALID_ARGUMENT naming the file and what is wrong.
  static absl::StatusOr<std::unique_ptr<SafetensorsWeights>> Open(const std::string& folder, bool tied);

  bool Has(absl::string_view name) const override;
  absl::StatusOr<HostTensor> Take(absl::string_view name, const std::vector<int64_t>& shape) override;
  std::vector<std::string> NotTaken() const override;
  const std::string& path() const override { return folder_; }

  int64_t element_count() const;
  std::string main_type() const;  // of most tensors

 private:
  struct Place {
    const SafetensorsFile* file;
    const SafeTensor* tensor;
  };

  SafetensorsWeights(const std::string& folder, bool tied) : folder_(folder), tied_(tied) {}

  absl::Status AddFile(const std::string& name);
  absl::StatusOr<std::vector<std::string>> ShardNames() const;

  const std::string folder_;
  const bool tied_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  absl::flat_hash_map<std::string, Place> places_;
  absl::flat_hash_set<std::string> taken_;
  ReleasedLater released_;
};

// The name that safetensors folders give to what GGUF files call `gguf_name`; empty if there is none.
std::string HfTensorName(absl::string_view gguf_name);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_SAFETENSORS_WEIGHTS_H_
