// Goal: what the operator leaves open is sized to the model and the machine, and what cannot be is refused by name.
// Method: made-up models and machines.

#include "engine/runtime/engine_sizing.h"

#include "engine/runtime/available_memory.h"
#include "gtest/gtest.h"

namespace fermata {
namespace {

constexpr int64_t kPlenty = int64_t{1} << 40;

EngineOptions Unsized() {
  EngineOptions engine;
  engine.context_tokens = 0;
  engine.max_running = 4;
  engine.block_tokens = 16;
  return engine;
}

TEST(EngineSizingTest, PoolHoldsWhatAllSlotsCouldUse) {
  EngineOptions engine = Unsized();
  ASSERT_TRUE(
      SizeEngine({.model_context_tokens = 1024, .kv_bytes_per_token = 100, .available_bytes = kPlenty}, engine).ok());
  EXPECT_EQ(engine.context_tokens, 1024);
  EXPECT_EQ(engine.block_count, 4 * 1024 / 16);
}

TEST(EngineSizingTest, PoolTakesAtMostAQuarterOfTheMemory) {
  EngineOptions engine = Unsized();
  ASSERT_TRUE(
      SizeEngine({.model_context_tokens = 1024, .kv_bytes_per_token = 100, .available_bytes = 64000}, engine).ok());
  EXPECT_EQ(engine.block_count, 64000 / 4 / 1600);
}

TEST(EngineSizingTest, PoolOnADeviceTakesWhatIsLeftOfItsFraction) {
  EngineOptions engine = Unsized();
  SizingFacts facts = {.model_context_tokens = 1024, .kv_bytes_per_token = 100, .available_bytes = 60000};
  facts.device_bytes = 100000;
  facts.device_fraction = 0.75;
  ASSERT_TRUE(SizeEngine(facts, engine).ok());
  EXPECT_EQ(engine.block_count, (60000 - 25000) / 1600);
}

TEST(EngineSizingTest, DeviceWithoutRoomForABlockIsRefused) {
  EngineOptions engine = Unsized();
  SizingFacts facts = {.model_context_tokens = 1024, .kv_bytes_per_token = 100, .available_bytes = 20000};
  facts.device_bytes = 100000;
  facts.device_fraction = 0.75;
  const absl::Status status = SizeEngine(facts, engine);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("--gpu_memory_fraction is 0.75 of 100000 bytes, of which 20000 are free"),
            absl::string_view::npos);
}

TEST(EngineSizingTest, OperatorsWishesStand) {
  EngineOptions engine = Unsized();
  engine.context_tokens = 512;
  ASSERT_TRUE(
      SizeEngine({.model_context_tokens = 1024, .kv_bytes_per_token = 100, .kv_bytes = 5000, .available_bytes = 1},
                 engine)
          .ok());
  EXPECT_EQ(engine.context_tokens, 512);
  EXPECT_EQ(engine.block_count, 3);
}

TEST(EngineSizingTest, ContextBeyondTheModelsIsRefused) {
  EngineOptions engine = Unsized();
  engine.context_tokens = 1025;
  const absl::Status status =
      SizeEngine({.model_context_tokens = 1024, .kv_bytes_per_token = 100, .available_bytes = kPlenty}, engine);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("--context_tokens is 1025"), absl::string_view::npos);
}

TEST(EngineSizingTest, PoolWithoutABlockIsRefused) {
  EngineOptions engine = Unsized();
  const absl::Status status = SizeEngine(
      {.model_context_tokens = 1024, .kv_bytes_per_token = 100, .kv_bytes = 1599, .available_bytes = kPlenty}, engine);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("--kv_bytes"), absl::string_view::npos);
}

TEST(EngineSizingTest, ThisMachineHasMemory) { EXPECT_GT(AvailableMemoryBytes(), 1 << 20); }

}  // namespace
}  // namespace fermata
