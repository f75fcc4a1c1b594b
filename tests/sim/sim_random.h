// The source of all chance in a simulation: a seed gives the same numbers on every machine and standard library.

#ifndef FERMATA_TESTS_SIM_SIM_RANDOM_H_
#define FERMATA_TESTS_SIM_SIM_RANDOM_H_

#include <cstddef>
#include <cstdint>
#include <random>

namespace fermata {

class SimRandom {
 public:
  explicit SimRandom(uint64_t seed) : engine_(seed) {}

  // A whole number in [least, most], both included. REQUIRES: least <= most.
  int64_t Uniform(int64_t least, int64_t most) {
    // Not std::uniform_int_distribution, whose numbers are the library's own choice. The bias of % is of no account.
    return least + static_cast<int64_t>(engine_() % static_cast<uint64_t>(most - least + 1));
  }

  // True once in `n` times.
  bool OneIn(int64_t n) { return Uniform(1, n) == 1; }

  // An index below `size`. REQUIRES: size > 0.
  size_t Index(size_t size) { return static_cast<size_t>(Uniform(0, static_cast<int64_t>(size) - 1)); }

 private:
  std::mt19937_64 engine_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_SIM_RANDOM_H_
