// The weights of a GGUF file.

#ifndef FERMATA_ENGINE_MODEL_GGUF_WEIGHTS_H_
#define FERMATA_ENGINE_MODEL_GGUF_WEIGHTS_H_

#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "engine/model/gguf_file.h"
#include "engine/model/released_later.h"
#include "engine/model/weight_source.h"

namespace fermata {

// Tensors are the file's own memory. When later ones are taken, earlier ones' pages are given back: a back end that
// has made its own copy needs them no more, so that file and copies are not in memory together; one that reads on in
// the file gets them back from the system's cache.
class GgufWeights : public WeightSource {
 public:
  // `file` must outlive this and all that is made of the tensors.
  explicit GgufWeights(const GgufFile& file) : file_(file) {}

  bool Has(absl::string_view name) const override { return file_.FindTensor(name) != nullptr; }
  absl::StatusOr<HostTensor> Take(absl::string_view name, const std::vector<int64_t>& shape) override;
  std::vector<std::string> NotTaken() const override;
  const std::string& path() const override { return file_.path(); }

 private:
  const GgufFile& file_;
  absl::flat_hash_set<std::string> taken_;
  ReleasedLater released_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_GGUF_WEIGHTS_H_
