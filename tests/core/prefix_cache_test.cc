// Goal: equal prefixes share blocks, others never do, and room is made from the end of what was used longest ago.
// Method: the cache by itself, with blocks of two tokens; then an engine whose generations begin alike.

#include "engine/core/prefix_cache.h"

#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/engine_harness.h"

namespace fermata {
namespace {

using testing::ElementsAre;
using NodeId = PrefixCache::NodeId;

constexpr int32_t kBlockTokens = 2;

std::vector<TokenId> Tokens(const std::string& text) {
  std::vector<TokenId> tokens;
  for (const char c : text) tokens.push_back(TokenId{c});
  return tokens;
}

class PrefixCacheTest : public testing::Test {
 protected:
  // Puts the blocks of `text` in, as one generation does that holds them.
  std::vector<NodeId> Put(const std::string& text, const std::string& salt = "") {
    std::vector<NodeId> path;
    const std::vector<TokenId> tokens = Tokens(text);
    for (size_t i = 0; i < tokens.size(); i += kBlockTokens) {
      const std::optional<NodeId> parent = path.empty() ? std::nullopt : std::optional<NodeId>(path.back());
      const std::optional<NodeId> node =
          cache_.Insert(parent, salt, absl::MakeConstSpan(tokens).subspan(i, kBlockTokens), BlockId{next_block_++});
      if (!node.has_value()) break;
      cache_.Hold(*node, KvUse::kRunning);
      path.push_back(*node);
    }
    return path;
  }

  void Drop(const std::vector<NodeId>& path) {
    for (auto it = path.rbegin(); it != path.rend(); ++it) cache_.Drop(*it, KvUse::kRunning);
  }

  // The blocks that a prompt would begin with.
  std::vector<int32_t> Find(const std::string& text, const std::string& salt = "") const {
    std::vector<int32_t> blocks;
    for (const NodeId node : cache_.Match(Tokens(text), salt)) blocks.push_back(Value(cache_.block(node)));
    return blocks;
  }

  PrefixCache cache_{kBlockTokens};
  int32_t next_block_ = 0;
};

TEST_F(PrefixCacheTest, FindsTheLongestPrefixInWholeBlocks) {
  Put("abcdef");
  EXPECT_THAT(Find("abcdef"), ElementsAre(0, 1, 2));
  EXPECT_THAT(Find("abcdeX"), ElementsAre(0, 1));
  EXPECT_THAT(Find("abcde"), ElementsAre(0, 1));
  EXPECT_THAT(Find("cdef"), ElementsAre()) << "the same tokens elsewhere are another prefix";
}

TEST_F(PrefixCacheTest, BranchesShareWhatTheyHaveInCommon) {
  Put("abcd");
  const std::vector<NodeId> common = cache_.Match(Tokens("ab"), "");
  cache_.Hold(common[0], KvUse::kRunning);
  EXPECT_TRUE(cache_.Insert(common[0], "", Tokens("xy"), BlockId{7}).has_value());
  EXPECT_THAT(Find("abxy"), ElementsAre(0, 7));
  EXPECT_THAT(Find("abcd"), ElementsAre(0, 1));
}

TEST_F(PrefixCacheTest, TheSameContentTwiceIsKeptOnce) {
  Put("ab");
  EXPECT_FALSE(cache_.Insert(std::nullopt, "", Tokens("ab"), BlockId{9}).has_value());
  EXPECT_THAT(Find("ab"), ElementsAre(0));
}

TEST_F(PrefixCacheTest, AnotherSaltIsAnotherWorld) {
  Put("abcd", "red");
  EXPECT_THAT(Find("abcd", "red"), ElementsAre(0, 1));
  EXPECT_THAT(Find("abcd", "blue"), ElementsAre());
  Put("abcd", "blue");
  EXPECT_THAT(Find("abcd", "blue"), ElementsAre(2, 3));
}

TEST_F(PrefixCacheTest, RoomIsMadeFromTheEndOfWhatWasUsedLongestAgo) {
  const std::vector<NodeId> old = Put("abcd");
  const std::vector<NodeId> recent = Put("wxyz");
  EXPECT_EQ(cache_.unused_count(), 0);
  Drop(old);
  Drop(recent);
  EXPECT_EQ(cache_.unused_count(), 4);
  // Used again: now it is the recent one.
  for (const NodeId node : old) cache_.Hold(node, KvUse::kPaused);
  for (auto it = old.rbegin(); it != old.rend(); ++it) cache_.Drop(*it, KvUse::kPaused);
  std::vector<int32_t> evicted;
  while (cache_.unused_count() > 0) evicted.push_back(Value(cache_.Evict()));
  EXPECT_THAT(evicted, ElementsAre(3, 2, 1, 0));
  EXPECT_THAT(Find("abcd"), ElementsAre());
}

TEST_F(PrefixCacheTest, ABlockCountsForItsMostActiveUse) {
  const NodeId node = Put("ab")[0];
  cache_.Hold(node, KvUse::kPaused);
  EXPECT_EQ(cache_.count(KvUse::kRunning), 1);
  EXPECT_EQ(cache_.count(KvUse::kPaused), 0);
  cache_.Move(node, KvUse::kRunning, KvUse::kWaiting);
  EXPECT_EQ(cache_.count(KvUse::kWaiting), 1);
  cache_.Drop(node, KvUse::kWaiting);
  EXPECT_EQ(cache_.count(KvUse::kPaused), 1);
}

EngineOptions Sharing(PrefixSharing sharing) {
  EngineOptions options;
  options.prefix_sharing = sharing;
  options.block_tokens = 4;
  options.block_count = 20;
  options.context_tokens = 80;
  return options;
}

// What a generation of 18 prompt tokens finds when one like it is done.
TEST(SharedPrefixTest, TheSecondOneComputesOnlyWhatTheFirstHasNot) {
  EngineHarness engine(Sharing(PrefixSharing::kAll));
  engine.Enqueue("first", {.prompt_tokens = 18, .max_tokens = 2});
  while (engine.Get("first").generation->state != GenerationState::kFinished) engine.Step();
  EXPECT_EQ(engine.Get("first").generation->usage.cached_token_count, 0);
  const OperationResult second = engine.Enqueue("second", {.prompt_tokens = 18, .max_tokens = 2});
  EXPECT_EQ(second.generation->usage.cached_token_count, 16) << "known before it is admitted";
  engine.Step();
  const Usage usage = engine.Get("second").generation->usage;
  EXPECT_EQ(usage.cached_token_count, 16);
  EXPECT_EQ(usage.prefilled_token_count, 2);
  EXPECT_EQ(usage.output_token_count, 1);
}

TEST(SharedPrefixTest, ATokenAtLeastIsComputed) {
  EngineHarness engine(Sharing(PrefixSharing::kAll));
  engine.Enqueue("first", {.prompt_tokens = 16, .max_tokens = 2});
  while (engine.Get("first").generation->state != GenerationState::kFinished) engine.Step();
  EXPECT_EQ(engine.Enqueue("second", {.prompt_tokens = 16, .max_tokens = 2}).generation->usage.cached_token_count, 12);
}

TEST(SharedPrefixTest, CachedBlocksGiveWayToWhoeverNeedsTheRoom) {
  EngineHarness engine(Sharing(PrefixSharing::kAll));
  engine.Enqueue("first", {.prompt_tokens = 18, .max_tokens = 2});
  while (engine.Get("first").generation->state != GenerationState::kFinished) engine.Step();
  // All twenty blocks, of another beginning.
  engine.Enqueue("large", {.prompt_tokens = 1, .max_tokens = 79});
  engine.Step(78);
  EXPECT_EQ(engine.Get("large").generation->state, GenerationState::kRunning);
  EXPECT_EQ(engine.Enqueue("second", {.prompt_tokens = 18, .max_tokens = 2}).generation->usage.cached_token_count, 0);
}

TEST(SharedPrefixTest, WhatIsPausedKeepsItsBlocks) {
  EngineHarness engine(Sharing(PrefixSharing::kAll));
  engine.Enqueue("held", {.prompt_tokens = 18, .max_tokens = 10});
  engine.Step();
  engine.Preempt("held");
  engine.Enqueue("large", {.prompt_tokens = 79, .max_tokens = 1});
  engine.Step();
  EXPECT_EQ(engine.Get("large").generation->state, GenerationState::kQueued) << "the cache cannot give them away";
  EXPECT_EQ(engine.Get("held").generation->kv_blocks.total(), 5);
}

}  // namespace
}  // namespace fermata
