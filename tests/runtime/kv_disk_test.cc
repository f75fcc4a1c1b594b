// Goal: what was parked is read back to the byte, by another process too, and whatever is torn, changed, of another
// model or half written is refused and named. Method: a folder of the test's own, and files changed by hand.

#include "engine/runtime/kv_disk.h"

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/runtime/kv_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fermata {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kBlockBytes = 96;

ParkedGeneration Example(const std::string& id) {
  ParkedGeneration parked = {.id = *GenerationId::Parse(id), .body_digest = "digest"};
  SamplingParams& sampling = parked.spec.sampling;
  sampling = {.max_tokens = 9, .temperature = 0.5f, .top_k = 3, .top_p = 0.9f, .min_p = 0.1f, .seed = 77};
  sampling.stop = {"END", "\n\n"};
  sampling.stop_token_ids = {TokenId{5}};
  sampling.logit_bias = {{TokenId{7}, -2.5f}};
  sampling.logprobs = 2;
  parked.spec.priority = -3;
  parked.spec.tenant = "red";
  parked.spec.traffic_class = "batch";
  parked.spec.labels = {{"a", "b"}, {"c", ""}};
  parked.spec.timeout = absl::Seconds(9);
  parked.spec.on_disconnect = OnDisconnect::kPause;
  parked.spec.hold_on_stop = true;
  parked.context = {TokenId{1}, TokenId{2}, TokenId{3}, TokenId{4}};
  parked.appended = {{2, 3}};
  parked.append_id = "turn-2";
  parked.text_begins = {1};
  parked.computed_token_count = 3;
  parked.held_finish = FinishReason::kStop;
  parked.usage = {.prompt_token_count = 2, .appended_token_count = 1, .output_token_count = 1, .pause_count = 4};
  parked.usage.running_duration = absl::Milliseconds(1234);
  parked.pause_reason = "later";
  parked.lease = absl::Seconds(60);
  parked.on_lease_expiry = OnLeaseExpiry::kAbort;
  parked.session_id = "s";
  parked.session_ttl = absl::Seconds(5);
  parked.create_time = absl::FromUnixMillis(1700000000123);
  parked.start_time = absl::InfinitePast();
  return parked;
}

class KvDiskTest : public testing::Test {
 protected:
  KvDiskTest() : folder_(absl::StrCat(testing::TempDir(), "/kv_disk_test_", getpid())) { fs::remove_all(folder_); }
  ~KvDiskTest() override { fs::remove_all(folder_); }

  std::unique_ptr<KvDisk> Open(const std::string& fingerprint = "model") {
    absl::StatusOr<std::unique_ptr<KvDisk>> disk = KvDisk::Open(folder_, fingerprint, kBlockBytes);
    EXPECT_TRUE(disk.ok()) << disk.status();
    return *std::move(disk);
  }

  // Block b is full of byte b.
  absl::Status Write(KvDisk& disk, const std::string& id, int64_t blocks) {
    return disk.Write(Example(id), blocks, [](int64_t first, absl::Span<std::byte> bytes) {
      for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(first + i / kBlockBytes);
      return absl::OkStatus();
    });
  }

  absl::Status Read(KvDisk& disk, const std::string& id, int64_t first, int64_t count, std::string* bytes) {
    return disk.Read(*GenerationId::Parse(id), first, count, [&](int64_t, absl::Span<const std::byte> some) {
      bytes->append(reinterpret_cast<const char*>(some.data()), some.size());
      return absl::OkStatus();
    });
  }

  std::string PathOf(const std::string& id) const { return absl::StrCat(folder_, "/g-", id, ".kv"); }

  static std::string Bytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static void SetBytes(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  }

  const std::string folder_;
};

TEST_F(KvDiskTest, WhatIsWrittenIsReadBackAndFoundByAnotherProcess) {
  {
    const std::unique_ptr<KvDisk> disk = Open();
    ASSERT_TRUE(Write(*disk, "a", 5).ok());
    std::string bytes;
    ASSERT_TRUE(Read(*disk, "a", 1, 3, &bytes).ok());
    EXPECT_EQ(bytes, std::string(kBlockBytes, 1) + std::string(kBlockBytes, 2) + std::string(kBlockBytes, 3));
    EXPECT_EQ(Read(*disk, "a", 3, 3, &bytes).code(), absl::StatusCode::kDataLoss) << "it has five";
    EXPECT_TRUE(absl::IsNotFound(Read(*disk, "b", 0, 1, &bytes)));
  }
  const std::unique_ptr<KvDisk> disk = Open();
  ASSERT_EQ(disk->found().size(), 1u);
  EXPECT_THAT(disk->refused(), IsEmpty());
  EXPECT_EQ(disk->found()[0].block_count, 5);
  // All fields at once: the same bytes.
  const auto encode = [](const ParkedGeneration& parked) {
    return EncodeKvFileHead({.fingerprint = "model", .parked = parked, .block_bytes = 0, .block_checksums = {}});
  };
  EXPECT_EQ(encode(disk->found()[0].parked), encode(Example("a")));
  EXPECT_EQ(disk->found()[0].parked.spec.labels, Example("a").spec.labels);
  EXPECT_EQ(disk->found()[0].parked.start_time, absl::InfinitePast());
  disk->Remove(*GenerationId::Parse("a"));
  EXPECT_FALSE(fs::exists(PathOf("a")));
}

TEST_F(KvDiskTest, ManyBlocksGoThroughInChunks) {
  const int64_t blocks = (20 << 20) / kBlockBytes;
  const std::unique_ptr<KvDisk> disk = Open();
  ASSERT_TRUE(Write(*disk, "a", blocks).ok());
  std::string bytes;
  ASSERT_TRUE(Read(*disk, "a", 0, blocks, &bytes).ok());
  ASSERT_EQ(static_cast<int64_t>(bytes.size()), blocks * kBlockBytes);
  for (int64_t b = 0; b < blocks; ++b) ASSERT_EQ(bytes[b * kBlockBytes], static_cast<char>(b)) << b;
}

TEST_F(KvDiskTest, AWriteThatFailsLeavesTheOlderFileAsItWas) {
  const std::unique_ptr<KvDisk> disk = Open();
  ASSERT_TRUE(Write(*disk, "a", 2).ok());
  const absl::Status status =
      disk->Write(Example("a"), 3, [](int64_t, absl::Span<std::byte>) { return absl::CancelledError("not wanted"); });
  EXPECT_TRUE(absl::IsCancelled(status));
  std::string bytes;
  EXPECT_TRUE(Read(*disk, "a", 0, 2, &bytes).ok());
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 2) << "the lock, and the file";
}

TEST_F(KvDiskTest, WhereThereIsNoRoomItSaysSo) {
  const std::unique_ptr<KvDisk> disk = Open();
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  // As good as a full disk.
  signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = Write(*disk, "a", 4);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("g-a.kv"));
  EXPECT_FALSE(fs::exists(PathOf("a")));
}

TEST_F(KvDiskTest, EveryCutAndEveryChangedByteBeforeTheBlocksIsRefused) {
  std::string whole;
  {
    const std::unique_ptr<KvDisk> disk = Open();
    ASSERT_TRUE(Write(*disk, "a", 2).ok());
    whole = Bytes(PathOf("a"));
  }
  const int64_t head = *KvFileHeadBytes(whole, static_cast<int64_t>(whole.size()));
  for (size_t size = 0; size < whole.size(); size += size < static_cast<size_t>(head) ? 1 : 512) {
    EXPECT_FALSE(DecodeKvFileHead(whole.substr(0, size), static_cast<int64_t>(size)).ok()) << size;
  }
  for (int64_t i = 0; i < head; ++i) {
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ 0x10);
    EXPECT_FALSE(DecodeKvFileHead(changed, static_cast<int64_t>(whole.size())).ok()) << i;
  }
  EXPECT_TRUE(DecodeKvFileHead(whole, static_cast<int64_t>(whole.size())).ok());
}

TEST_F(KvDiskTest, AChangedBlockIsFoundWhenItIsRead) {
  const std::unique_ptr<KvDisk> disk = Open();
  ASSERT_TRUE(Write(*disk, "a", 3).ok());
  std::string bytes = Bytes(PathOf("a"));
  bytes[bytes.size() - kBlockBytes] ^= 1;
  SetBytes(PathOf("a"), bytes);
  std::string read;
  EXPECT_TRUE(Read(*disk, "a", 0, 2, &read).ok());
  const absl::Status status = Read(*disk, "a", 0, 3, &read);
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("block 2"));
}

TEST_F(KvDiskTest, WhatIsNotItsOwnIsRefusedAndNamedAndLeftThere) {
  {
    const std::unique_ptr<KvDisk> disk = Open();
    for (const char* id : {"good", "torn", "moved"}) ASSERT_TRUE(Write(*disk, id, 1).ok());
  }
  { ASSERT_TRUE(Write(*Open("another model"), "another", 1).ok()); }
  SetBytes(PathOf("torn"), Bytes(PathOf("torn")).substr(0, 4100));
  fs::rename(PathOf("moved"), PathOf("elsewhere"));
  SetBytes(PathOf("unfinished") + ".tmp", "x");
  SetBytes(absl::StrCat(folder_, "/readme.txt"), "not ours");
  const std::unique_ptr<KvDisk> disk = Open();
  ASSERT_EQ(disk->found().size(), 1u);
  EXPECT_EQ(disk->found()[0].parked.id.value(), "good");
  std::vector<std::string> refused;
  for (const KvDisk::Refused& one : disk->refused()) refused.push_back(fs::path(one.path).filename());
  EXPECT_THAT(refused,
              testing::UnorderedElementsAre("g-another.kv", "g-elsewhere.kv", "g-torn.kv", "g-unfinished.kv.tmp"));
  EXPECT_TRUE(fs::exists(PathOf("torn")));
  EXPECT_FALSE(fs::exists(PathOf("unfinished") + ".tmp")) << "nobody was told of it";
}

TEST_F(KvDiskTest, AFolderHasOneProcess) {
  const std::unique_ptr<KvDisk> disk = Open();
  const absl::StatusOr<std::unique_ptr<KvDisk>> second = KvDisk::Open(folder_, "model", kBlockBytes);
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status()));
  EXPECT_FALSE(KvDisk::Open("/nowhere/at/all", "model", kBlockBytes).ok());
}

}  // namespace
}  // namespace fermata
