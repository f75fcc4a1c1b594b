// Lines of JSON that tests compare with.

#ifndef FERMATA_TESTS_FAKES_GOLDEN_FILE_H_
#define FERMATA_TESTS_FAKES_GOLDEN_FILE_H_

#include <fstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace fermata {

// The objects of tests/goldens/`name`, one a line. Fails the test if there is none.
inline std::vector<nlohmann::json> ReadGoldens(const std::string& name) {
  std::ifstream file("tests/goldens/" + name);
  std::vector<nlohmann::json> goldens;
  for (std::string line; std::getline(file, line);) goldens.push_back(nlohmann::json::parse(line));
  EXPECT_FALSE(goldens.empty()) << "nothing to compare with in " << name;
  return goldens;
}

}  // namespace fermata

#endif  // FERMATA_TESTS_FAKES_GOLDEN_FILE_H_
