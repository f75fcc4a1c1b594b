#include "engine/runtime/available_memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace fermata {
namespace {

// The first number in a file; `otherwise` if there is none ("max", for instance).
int64_t NumberIn(const char* path, int64_t otherwise) {
  int64_t number = 0;
  std::ifstream file(path);
  return file >> number ? number : otherwise;
}

int64_t SystemAvailableBytes() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  std::string unit;
  for (int64_t kibibytes = 0; file >> name >> kibibytes && std::getline(file, unit);) {
    if (name == "MemAvailable:") return kibibytes * 1024;
  }
  // Leaves out what caches could give back.
  return int64_t{sysconf(_SC_AVPHYS_PAGES)} * sysconf(_SC_PAGESIZE);
}

}  // namespace

int64_t AvailableMemoryBytes() {
  constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();
  const int64_t limit = NumberIn("/sys/fs/cgroup/memory.max", kNoLimit);
  if (limit == kNoLimit) return SystemAvailableBytes();
  const int64_t used = NumberIn("/sys/fs/cgroup/memory.current", 0);
  return std::min(SystemAvailableBytes(), std::max<int64_t>(limit - used, 0));
}

}  // namespace fermata
