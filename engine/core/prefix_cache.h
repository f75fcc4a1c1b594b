// KV blocks by their content, so that generations with the same beginning share them.

#ifndef FERMATA_ENGINE_CORE_PREFIX_CACHE_H_
#define FERMATA_ENGINE_CORE_PREFIX_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/core/ids.h"

namespace fermata {

// What a generation does with the blocks that it holds; the most active first.
enum class KvUse { kRunning, kWaiting, kPaused };
inline constexpr int kKvUseCount = 3;

// A tree of full blocks: a node is a block's tokens, below the node of the block before it. So a path from the root is
// a prefix, and equal paths are equal prefixes: tokens are compared, not their hashes alone. Below another salt is
// another root. Blocks that nobody holds stay, until somebody needs the room: least recently used first.
//
// Knows which blocks it has been given, and no pool. One thread. The idea is that of vLLM's automatic prefix caching
// and of SGLang's radix tree, with blocks for edges.
class PrefixCache {
 public:
  // Reused once evicted.
  enum class NodeId : int32_t {};

  explicit PrefixCache(int32_t block_tokens) : block_tokens_(block_tokens), nodes_by_content_(0, {this}, {this}) {}

  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // The nodes of the longest prefix of `tokens`, in whole blocks, that is there. O(tokens).
  std::vector<NodeId> Match(absl::Span<const TokenId> tokens, absl::string_view salt) const;

  // Takes in a block whose KV is written, below `parent` (none: the first of its prefix). nullopt if there is one of
  // the same content already: the block stays the caller's. REQUIRES: block_tokens tokens; `parent` is held.
  std::optional<NodeId> Insert(std::optional<NodeId> parent, absl::string_view salt, absl::Span<const TokenId> tokens,
                               BlockId block);

  // Somebody holds the block of a node, changes its use, or lets go. Whoever holds a node holds all above it, and lets
  // go of them after it.
  void Hold(NodeId node, KvUse use);
  void Move(NodeId node, KvUse from, KvUse to);
  void Drop(NodeId node, KvUse use);

  // Gives up the block that was let go longest ago. REQUIRES: unused_count() > 0.
  BlockId Evict();

  BlockId block(NodeId node) const { return nodes_[Index(node)].block; }
  int32_t holder_count(NodeId node, KvUse use) const { return nodes_[Index(node)].holders[static_cast<int>(use)]; }

  // Of all uses together.
  int32_t holder_count(NodeId node) const {
    int32_t count = 0;
    for (const int32_t holders : nodes_[Index(node)].holders) count += holders;
    return count;
  }

  // Blocks that nobody holds; those that somebody does, each counted once, for the most active of its uses; and all.
  int64_t unused_count() const { return static_cast<int64_t>(unused_.size()); }
  int64_t count(KvUse use) const { return count_[static_cast<int>(use)]; }
  int64_t size() const { return static_cast<int64_t>(nodes_by_content_.size()); }

 private:
  using Salt = std::pair<uint64_t, uint64_t>;

  // What a node is found by.
  struct Content {
    int32_t parent = kRoot;
    Salt salt;  // below a root alone
    absl::Span<const TokenId> tokens;

    template <typename H>
    friend H AbslHashValue(H h, const Content& content) {
      return H::combine(std::move(h), content.parent, content.salt, content.tokens);
    }
    friend bool operator==(const Content& a, const Content& b) {
      return a.parent == b.parent && a.salt == b.salt && a.tokens == b.tokens;
    }
  };

  struct Node {
    BlockId block{};
    int32_t parent = kRoot;
    Salt salt;
    std::vector<TokenId> tokens;
    int32_t holders[kKvUseCount] = {};
    int32_t child_count = 0;
    int64_t unused_since = 0;  // while nobody holds it: a tick
  };

  struct Hash {
    using is_transparent = void;
    size_t operator()(int32_t index) const { return (*this)(cache->ContentOf(index)); }
    size_t operator()(const Content& content) const;
    const PrefixCache* cache;
  };

  struct Equal {
    using is_transparent = void;
    bool operator()(int32_t a, int32_t b) const { return a == b; }
    bool operator()(int32_t a, const Content& b) const { return cache->ContentOf(a) == b; }
    bool operator()(const Content& a, int32_t b) const { return cache->ContentOf(b) == a; }
    const PrefixCache* cache;
  };

  static constexpr int32_t kRoot = -1;

  static int32_t Index(NodeId node) { return static_cast<int32_t>(node); }
  static Salt SaltOf(absl::string_view text);
  Content ContentOf(int32_t index) const;

  // Where the node counts: its most active use, or kKvUseCount if nobody holds it.
  static int PlaceOf(const Node& node);

  // Changes the holders of a node by `change`, and what follows from that.
  template <typename Change>
  void Update(NodeId id, Change change);

  const int32_t block_tokens_;
  std::vector<Node> nodes_;
  std::vector<int32_t> free_nodes_;
  absl::flat_hash_set<int32_t, Hash, Equal> nodes_by_content_;
  absl::btree_set<std::pair<int64_t, int32_t>> unused_;  // (since, node)
  int64_t count_[kKvUseCount] = {};
  int64_t tick_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_PREFIX_CACHE_H_
