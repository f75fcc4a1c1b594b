// The alphabet in which byte-level BPE vocabularies are written: each byte as one printable character.

#ifndef FERMATA_ENGINE_MODEL_BYTE_LEVEL_H_
#define FERMATA_ENGINE_MODEL_BYTE_LEVEL_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace fermata {

// Printable Latin-1 bytes stand for themselves; the others, in order, for the characters from U+0100 on. From: Radford
// et al., "Language Models are Unsupervised Multitask Learners", 2019.

// The character of `byte`, in UTF-8.
std::string EncodeByteLevel(uint8_t byte);

// The bytes that `text` stands for; nothing if it has a character that is not of the alphabet.
std::optional<std::string> DecodeByteLevel(absl::string_view text);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_BYTE_LEVEL_H_
