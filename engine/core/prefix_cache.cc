#include "engine/core/prefix_cache.h"

#include "absl/hash/hash.h"
#include "engine/core/check.h"

namespace fermata {

size_t PrefixCache::Hash::operator()(const Content& content) const { return absl::Hash<Content>()(content); }

PrefixCache::Salt PrefixCache::SaltOf(absl::string_view text) {
  // Of both, so that two texts have one salt once in 2^128.
  return {absl::Hash<absl::string_view>()(text), absl::Hash<std::pair<absl::string_view, int>>()({text, 1})};
}

PrefixCache::Content PrefixCache::ContentOf(int32_t index) const {
  const Node& node = nodes_[index];
  return {node.parent, node.salt, node.tokens};
}

int PrefixCache::PlaceOf(const Node& node) {
  int use = 0;
  while (use < kKvUseCount && node.holders[use] == 0) ++use;
  return use;
}

std::vector<PrefixCache::NodeId> PrefixCache::Match(absl::Span<const TokenId> tokens, absl::string_view salt) const {
  std::vector<NodeId> path;
  int32_t parent = kRoot;
  for (size_t begin = 0; begin + block_tokens_ <= tokens.size(); begin += block_tokens_) {
    const Content content = {parent, parent == kRoot ? SaltOf(salt) : Salt(), tokens.subspan(begin, block_tokens_)};
    const auto it = nodes_by_content_.find(content);
    if (it == nodes_by_content_.end()) break;
    parent = *it;
    path.push_back(NodeId{parent});
  }
  return path;
}

std::optional<PrefixCache::NodeId> PrefixCache::Insert(std::optional<NodeId> parent, absl::string_view salt,
                                                       absl::Span<const TokenId> tokens, BlockId block) {
  FERMATA_CHECK(static_cast<int32_t>(tokens.size()) == block_tokens_);
  const int32_t above = parent.has_value() ? Index(*parent) : kRoot;
  const Content content = {above, above == kRoot ? SaltOf(salt) : Salt(), tokens};
  if (nodes_by_content_.contains(content)) return std::nullopt;
  int32_t index;
  if (free_nodes_.empty()) {
    index = static_cast<int32_t>(nodes_.size());
    nodes_.emplace_back();
  } else {
    index = free_nodes_.back();
    free_nodes_.pop_back();
  }
  Node& node = nodes_[index];
  node = {.block = block,
          .parent = above,
          .salt = content.salt,
          .tokens = std::vector<TokenId>(tokens.begin(), tokens.end()),
          .unused_since = tick_++};
  if (above != kRoot) {
    FERMATA_CHECK(PlaceOf(nodes_[above]) < kKvUseCount);
    ++nodes_[above].child_count;
  }
  nodes_by_content_.insert(index);
  unused_.insert({node.unused_since, index});
  return NodeId{index};
}

template <typename Change>
void PrefixCache::Update(NodeId id, Change change) {
  Node& node = nodes_[Index(id)];
  const int before = PlaceOf(node);
  change(node);
  const int after = PlaceOf(node);
  if (before == after) return;
  if (before == kKvUseCount) {
    unused_.erase({node.unused_since, Index(id)});
  } else {
    --count_[before];
  }
  if (after == kKvUseCount) {
    node.unused_since = tick_++;
    unused_.insert({node.unused_since, Index(id)});
  } else {
    ++count_[after];
  }
}

void PrefixCache::Hold(NodeId node, KvUse use) {
  Update(node, [use](Node& changed) { ++changed.holders[static_cast<int>(use)]; });
}

void PrefixCache::Move(NodeId node, KvUse from, KvUse to) {
  Update(node, [from, to](Node& changed) {
    FERMATA_CHECK(changed.holders[static_cast<int>(from)] > 0);
    --changed.holders[static_cast<int>(from)];
    ++changed.holders[static_cast<int>(to)];
  });
}

void PrefixCache::Drop(NodeId node, KvUse use) {
  Update(node, [use](Node& changed) {
    FERMATA_CHECK(changed.holders[static_cast<int>(use)] > 0);
    --changed.holders[static_cast<int>(use)];
  });
}

BlockId PrefixCache::Evict() {
  FERMATA_CHECK(!unused_.empty());
  const int32_t index = unused_.begin()->second;
  Node& node = nodes_[index];
  // Whoever let go of the blocks below it did so before.
  FERMATA_CHECK(node.child_count == 0);
  nodes_by_content_.erase(index);
  unused_.erase(unused_.begin());
  if (node.parent != kRoot) --nodes_[node.parent].child_count;
  node.tokens = {};
  free_nodes_.push_back(index);
  return node.block;
}

}  // namespace fermata
