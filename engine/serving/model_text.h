// What serving needs of the model: its tokenizer and chat template.

#ifndef FERMATA_ENGINE_SERVING_MODEL_TEXT_H_
#define FERMATA_ENGINE_SERVING_MODEL_TEXT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "engine/model/chat_template.h"
#include "engine/model/model_info.h"
#include "engine/model/tokenizer.h"

namespace fermata {

// Borrowed; immutable, so that any thread may use it.
struct ModelText {
  ModelInfo info;
  int32_t context_tokens = 0;                   // longest prompt + output that this server takes
  const Tokenizer* tokenizer = nullptr;         // never null in use
  const ChatTemplate* chat_template = nullptr;  // null: none that is known
  absl::Status chat_template_status;            // why
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_MODEL_TEXT_H_
