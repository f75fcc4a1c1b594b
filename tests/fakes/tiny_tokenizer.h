// A small byte-level BPE tokenizer without a model file: every byte is a token, so it takes any text.

#ifndef FERMATA_TESTS_FAKES_TINY_TOKENIZER_H_
#define FERMATA_TESTS_FAKES_TINY_TOKENIZER_H_

#include <string>

#include "engine/model/bpe_tokenizer.h"

namespace fermata {

// Tokens 0 to 255 are the bytes; then come a few merges, a token of the user's own ("<tool>"), and the control tokens
// of ChatML and of Llama 3, whose ends of a turn end a generation. Nothing is put first. `pretokenizer` is a name that
// Pretokenizer knows; any other crashes the test. Lives for ever.
const BpeTokenizer& TinyTokenizer(const std::string& pretokenizer);

}  // namespace fermata

#endif  // FERMATA_TESTS_FAKES_TINY_TOKENIZER_H_
