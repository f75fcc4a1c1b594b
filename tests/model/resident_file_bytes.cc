#include "tests/model/resident_file_bytes.h"

#include <fstream>
#include <string>

namespace fermata {

int64_t ResidentFileBytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    int64_t kilobytes = 0;
    if (word == "RssFile:" && status >> kilobytes) return kilobytes * 1024;
  }
  return -1;
}

}  // namespace fermata
