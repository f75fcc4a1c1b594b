// fermatactl: the command-line client. `fermatactl --help` says what it does.

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "tools/ctl/fermatactl.h"

int main(int argc, char** argv) {
  const auto environment = [](const std::string& name) {
    const char* value = std::getenv(name.c_str());
    return std::string(value == nullptr ? "" : value);
  };
  return fermata::ctl::RunFermatactl(std::vector<std::string>(argv + 1, argv + argc), environment, std::cout,
                                     std::cerr);
}
