// Runs the simulation over many seeds, or replays one. Flags: see --help, or kUsage below. Started by tools/simulate.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "tests/sim/simulator.h"

namespace fermata {
namespace {

constexpr absl::string_view kUsage =
    "usage: tools/simulate [FLAG]...\n"
    "  --seeds=N       how many seeds (200)\n"
    "  --first_seed=N  the first of them (1)\n"
    "  --seed=N        this one only\n"
    "  --steps=N       turns of the loop with commands, in each (500)\n"
    "  --verbose       tell every command, batch, event and reply\n";

struct Arguments {
  uint64_t first_seed = 1;
  uint64_t seed_count = 200;
  SimulatorOptions options;
};

// Takes one flag with its value; false if it is not understood.
bool Take(absl::string_view name, absl::string_view value, Arguments& arguments) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(value, &number)) return false;
  if (name == "--seeds") {
    arguments.seed_count = number;
  } else if (name == "--first_seed") {
    arguments.first_seed = number;
  } else if (name == "--seed") {
    arguments.first_seed = number;
    arguments.seed_count = 1;
  } else if (name == "--steps" && number <= std::numeric_limits<int>::max()) {
    arguments.options.steps = static_cast<int>(number);
  } else {
    return false;
  }
  return true;
}

// Understands "--name=value" and "--name value".
bool Parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    const absl::string_view argument = argv[i];
    if (argument == "--verbose") {
      arguments.options.verbose = true;
      continue;
    }
    const size_t equals = argument.find('=');
    const bool joined = equals != absl::string_view::npos;
    if (!joined && i + 1 == argc) return false;
    const absl::string_view value = joined ? argument.substr(equals + 1) : absl::string_view(argv[++i]);
    if (!Take(argument.substr(0, equals), value, arguments)) return false;
  }
  return true;
}

// False, with the violations and how to replay them on the standard output, if a promise was broken.
bool RunSeed(const SimulatorOptions& options, SimulatorResult& sum) {
  const SimulatorResult result = Simulator(options).Run();
  sum.steps += result.steps;
  sum.totals.generations += result.totals.generations;
  sum.totals.tokens += result.totals.tokens;
  sum.totals.pauses += result.totals.pauses;
  sum.totals.displacements += result.totals.displacements;
  sum.totals.moves += result.totals.moves;
  sum.totals.parts += result.totals.parts;
  sum.totals.trims += result.totals.trims;
  sum.totals.drops += result.totals.drops;
  sum.totals.stalls += result.totals.stalls;
  sum.totals.out_of_blocks += result.totals.out_of_blocks;
  if (result.violations.empty()) return true;
  absl::PrintF("seed %d:\n", options.seed);
  for (const std::string& violation : result.violations) absl::PrintF("  %s\n", violation);
  absl::PrintF("replay: %s\n", Simulator::ReplayCommand(options));
  return false;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  if (!Parse(argc, argv, arguments)) {
    absl::FPrintF(stderr, "%s", kUsage);
    return 2;
  }
  const auto begin = std::chrono::steady_clock::now();
  SimulatorResult sum;
  for (uint64_t i = 0; i < arguments.seed_count; ++i) {
    arguments.options.seed = arguments.first_seed + i;
    if (!RunSeed(arguments.options, sum)) return 1;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  absl::PrintF(
      "%d seeds, %d steps, %d generations, %d tokens, %d pauses, %d displacements, %d moves of KV (%d of a part), "
      "%d trimmed, %d dropped, %d stalls, %d out of blocks in %.1f s (%.0f steps/s): ",
      arguments.seed_count, sum.steps, sum.totals.generations, sum.totals.tokens, sum.totals.pauses,
      sum.totals.displacements, sum.totals.moves, sum.totals.parts, sum.totals.trims, sum.totals.drops,
      sum.totals.stalls, sum.totals.out_of_blocks, seconds, static_cast<double>(sum.steps) / seconds);
  absl::PrintF("every promise kept\n");
  return 0;
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) { return fermata::Main(argc, argv); }
