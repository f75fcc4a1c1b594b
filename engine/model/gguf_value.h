// A value of a GGUF file's metadata.

#ifndef FERMATA_ENGINE_MODEL_GGUF_VALUE_H_
#define FERMATA_ENGINE_MODEL_GGUF_VALUE_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace fermata {

// Integers of every width are int64_t (an unsigned one beyond its range is refused by the reader), floats are double.
// Arrays of arrays are not served.
using GgufValue = std::variant<int64_t, double, bool, std::string, std::vector<int64_t>, std::vector<double>,
                               std::vector<bool>, std::vector<std::string>>;

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_GGUF_VALUE_H_
