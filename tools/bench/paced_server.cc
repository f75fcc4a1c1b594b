#include "tools/bench/paced_server.h"

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/test_server.h"
#include "tools/bench/paced_runner.h"

namespace fermata {
namespace {

constexpr int32_t kContextTokens = 100000;

TestServer::Options OptionsFor(int32_t slots) {
  TestServer::Options options;
  options.engine.max_running = slots;
  options.engine.context_tokens = kContextTokens;
  options.engine.block_tokens = 4096;
  options.engine.block_count = 1 << 20;
  return options;
}

}  // namespace

void ServePaced(int32_t slots, absl::Duration step) {
  PacedRunner::Gaps gaps;
  TestServer server(OptionsFor(slots), FakeModelText(), std::make_unique<PacedRunner>(step, gaps));
  std::cout << server.data_address() << ' ' << server.control_address() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    const std::vector<double> taken = gaps.Take();
    std::cout << taken.size();
    for (const double gap : taken) std::cout << ' ' << gap;
    std::cout << std::endl;
  }
}

}  // namespace fermata
