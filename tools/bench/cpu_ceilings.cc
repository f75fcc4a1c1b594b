// Measures what this machine's CPU gives at most: reading memory that no cache holds, and dot products of 8-bit
// integers from registers, with all threads at once.
//
//   bazel run --config=opt //tools/bench:cpu_ceilings -- --threads=2
//
// Prints one JSON object a line, the best of several rounds. A dot product of n numbers counts as 2n operations.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_format.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

ABSL_FLAG(int32_t, threads, 0, "threads; 0: as many as there are cores");

namespace fermata {
namespace {

constexpr int kRounds = 5;

double Seconds(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The best of several rounds: how often a second all threads together do `work`(thread), which counts `amount`.
double BestRate(int32_t threads, double amount, const std::function<void(int32_t)>& work) {
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::thread> workers;
    std::atomic<bool> go = false;
    for (int32_t t = 0; t < threads; ++t) {
      workers.emplace_back([&, t] {
        while (!go) std::this_thread::yield();
        work(t);
      });
    }
    const auto begin = std::chrono::steady_clock::now();
    go = true;
    for (std::thread& worker : workers) worker.join();
    best = std::max(best, threads * amount / Seconds(begin));
  }
  return best;
}

double ReadBytesPerSecond(int32_t threads) {
  constexpr int64_t kWords = 16 << 20;  // 128 MiB for each thread
  std::vector<std::vector<uint64_t>> parts(threads, std::vector<uint64_t>(kWords, 1));
  std::vector<uint64_t> sums(threads);
  const double best = BestRate(threads, kWords * sizeof(uint64_t), [&](int32_t t) {
    uint64_t lanes[32] = {};
    for (int64_t i = 0; i < kWords; i += 32) {
      for (int lane = 0; lane < 32; ++lane) lanes[lane] += parts[t][i + lane];
    }
    for (const uint64_t lane : lanes) sums[t] += lane;
  });
  return sums[0] == 0 ? 0 : best;  // used, so that the reading is not left out
}

#if defined(__x86_64__)

constexpr int64_t kPasses = 1 << 23;
// So many independent sums hide the instructions' latency, and fit in registers.
constexpr int kSums = 10;

// Keeps the compiler from knowing a register's value, so that it computes it again each time.
#define FERMATA_OPAQUE(value) asm volatile("" : "+v"(value))

__attribute__((target("avx512f,avx512bw,avx512vnni"))) void DotAvx512Vnni() {
  __m512i sums[kSums];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  __m512i x = _mm512_set1_epi8(3);
  for (int64_t pass = 0; pass < kPasses; ++pass) {
    FERMATA_OPAQUE(x);
#pragma GCC unroll 10
    for (__m512i& sum : sums) sum = _mm512_dpbusd_epi32(sum, x, x);
  }
  for (__m512i& sum : sums) FERMATA_OPAQUE(sum);
}

__attribute__((target("avx2"))) void DotAvx2() {
  __m256i sums[kSums];
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  __m256i x = _mm256_set1_epi8(3);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t pass = 0; pass < kPasses; ++pass) {
#pragma GCC unroll 10
    for (__m256i& sum : sums) {
      FERMATA_OPAQUE(x);
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, x), ones));
    }
  }
  for (__m256i& sum : sums) FERMATA_OPAQUE(sum);
}

void PrintDots(int32_t threads) {
  const double steps = 2.0 * static_cast<double>(kPasses) * kSums;
  if (__builtin_cpu_supports("avx512vnni")) {
    absl::PrintF("{\"ceiling\":\"int8\",\"instructions\":\"avx512-vnni\",\"threads\":%d,\"gop_per_s\":%.0f}\n", threads,
                 BestRate(threads, steps * 64, [](int32_t) { DotAvx512Vnni(); }) / 1e9);
  }
  if (__builtin_cpu_supports("avx2")) {
    absl::PrintF("{\"ceiling\":\"int8\",\"instructions\":\"avx2\",\"threads\":%d,\"gop_per_s\":%.0f}\n", threads,
                 BestRate(threads, steps * 32, [](int32_t) { DotAvx2(); }) / 1e9);
  }
}

#else

void PrintDots(int32_t) {}

#endif

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const int32_t asked = absl::GetFlag(FLAGS_threads);
  const int32_t cores = std::max<int32_t>(1, static_cast<int32_t>(std::thread::hardware_concurrency()));
  const int32_t threads = asked > 0 ? asked : cores;
  absl::PrintF("{\"ceiling\":\"read\",\"threads\":%d,\"gb_per_s\":%.1f}\n", threads,
               fermata::ReadBytesPerSecond(threads) / 1e9);
  fermata::PrintDots(threads);
  return 0;
}
