#include "engine/model/bpe_merger.h"

#include <queue>
#include <tuple>

namespace fermata {
namespace {

constexpr int32_t kNone = -1;

// A token in a doubly linked list; merged ones leave it.
struct Node {
  TokenId token;
  int32_t previous;
  int32_t next;
  bool gone = false;
};

// A merge that is possible as long as both nodes still are what they were.
struct Candidate {
  int32_t rank;
  int32_t left;
  int32_t right;
  TokenId left_token;
  TokenId right_token;
  TokenId merged;

  friend bool operator>(const Candidate& a, const Candidate& b) {
    return std::tie(a.rank, a.left) > std::tie(b.rank, b.left);
  }
};

}  // namespace

void BpeMerger::AddRule(TokenId left, TokenId right, TokenId merged) {
  rules_.try_emplace({left, right}, Rule{static_cast<int32_t>(rules_.size()), merged});
}

const BpeMerger::Rule* BpeMerger::Find(TokenId left, TokenId right) const {
  const auto it = rules_.find({left, right});
  return it == rules_.end() ? nullptr : &it->second;
}

void BpeMerger::Merge(std::vector<TokenId>* tokens) const {
  const int32_t size = static_cast<int32_t>(tokens->size());
  std::vector<Node> nodes;
  nodes.reserve(size);
  for (int32_t i = 0; i < size; ++i) nodes.push_back({(*tokens)[i], i - 1, i + 1 < size ? i + 1 : kNone});

  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto consider = [&](int32_t left, int32_t right) {
    if (left == kNone || right == kNone) return;
    if (const Rule* rule = Find(nodes[left].token, nodes[right].token)) {
      candidates.push({rule->rank, left, right, nodes[left].token, nodes[right].token, rule->merged});
    }
  };
  for (int32_t i = 0; i + 1 < size; ++i) consider(i, i + 1);
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Node& left = nodes[best.left];
    Node& right = nodes[best.right];
    if (left.gone || right.gone || left.token != best.left_token || right.token != best.right_token) continue;
    left.token = best.merged;
    left.next = right.next;
    right.gone = true;
    if (left.next != kNone) nodes[left.next].previous = best.left;
    consider(left.previous, best.left);
    consider(best.left, left.next);
  }
  tokens->clear();
  for (const Node& node : nodes) {
    if (!node.gone) tokens->push_back(node.token);
  }
}

}  // namespace fermata
