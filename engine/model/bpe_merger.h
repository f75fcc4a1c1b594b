// Byte-pair merges: from the bytes of a word to its tokens.

#ifndef FERMATA_ENGINE_MODEL_BPE_MERGER_H_
#define FERMATA_ENGINE_MODEL_BPE_MERGER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/core/ids.h"

namespace fermata {

// Of all neighbouring pairs that have a rule the one with the lowest rank is merged, the leftmost among equals, until
// none is left. From: Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016. Immutable
// once filled.
class BpeMerger {
 public:
  // The next rule: `left` beside `right` becomes `merged`. Ranks rise in order of the calls; the first rule of a pair
  // counts.
  void AddRule(TokenId left, TokenId right, TokenId merged);

  // Merges `tokens` in place. O(n log n).
  void Merge(std::vector<TokenId>* tokens) const;

 private:
  struct Rule {
    int32_t rank;
    TokenId merged;
  };

  // Null if the pair has none.
  const Rule* Find(TokenId left, TokenId right) const;

  absl::flat_hash_map<std::pair<TokenId, TokenId>, Rule> rules_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_BPE_MERGER_H_
