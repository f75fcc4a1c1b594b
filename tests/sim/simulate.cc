// Runs the simulation over many seeds: tools/simulate.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tests/sim/simulator.h"

namespace fermata {
namespace {

struct Arguments {
  uint64_t first_seed = 1;
  uint64_t seeds = 200;
  int steps = 400;
  bool verbose = false;
};

constexpr char kUsage[] = "usage: simulate [--seeds=N] [--first_seed=S] [--seed=S] [--steps=N] [--verbose]\n";

// Takes "--name=value" and "--name value". False if something is not understood.
bool Parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (argument == "--verbose") {
      arguments.verbose = true;
      continue;
    }
    const size_t equals = argument.find('=');
    const absl::string_view name = argument.substr(0, equals);
    const std::string value = equals != absl::string_view::npos ? std::string(argument.substr(equals + 1))
                              : i + 1 < argc                    ? argv[++i]
                                                                : "";
    uint64_t number = 0;
    if (!absl::SimpleAtoi(value, &number)) return false;
    if (name == "--seeds") {
      arguments.seeds = number;
    } else if (name == "--first_seed") {
      arguments.first_seed = number;
    } else if (name == "--seed") {
      arguments.first_seed = number;
      arguments.seeds = 1;
    } else if (name == "--steps") {
      arguments.steps = static_cast<int>(number);
    } else {
      return false;
    }
  }
  return true;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  if (!Parse(argc, argv, arguments)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  const auto begin = std::chrono::steady_clock::now();
  int64_t steps = 0;
  int64_t generations = 0;
  int64_t displacements = 0;
  int64_t pauses = 0;
  for (uint64_t seed = arguments.first_seed; seed < arguments.first_seed + arguments.seeds; ++seed) {
    const SimulatorResult result =
        Simulator({.seed = seed, .steps = arguments.steps, .verbose = arguments.verbose}).Run();
    steps += result.steps;
    generations += result.generations;
    displacements += result.displacements;
    pauses += result.pauses;
    if (!result.violations.empty()) {
      std::printf("seed %llu:\n", static_cast<unsigned long long>(seed));
      for (const std::string& violation : result.violations) std::printf("  %s\n", violation.c_str());
      std::printf("replay: tools/simulate --seed %llu --steps %d --verbose\n", static_cast<unsigned long long>(seed),
                  arguments.steps);
      return 1;
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf(
      "%llu seeds, %lld steps, %lld generations, %lld displacements, %lld pauses in %.1f s: every promise kept\n",
      static_cast<unsigned long long>(arguments.seeds), static_cast<long long>(steps),
      static_cast<long long>(generations), static_cast<long long>(displacements), static_cast<long long>(pauses),
      seconds);
  return 0;
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) { return fermata::Main(argc, argv); }
