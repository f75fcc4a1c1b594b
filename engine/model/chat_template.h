// Turns a conversation into the prompt that the model was trained on. Templates are recognised by their content, not
// interpreted; one that is not recognised is refused.

#ifndef FERMATA_ENGINE_MODEL_CHAT_TEMPLATE_H_
#define FERMATA_ENGINE_MODEL_CHAT_TEMPLATE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/core/ids.h"
#include "engine/model/tokenizer.h"

namespace fermata {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

struct AppendedTurns {
  std::vector<TokenId> turn_end;  // to go before `tokens`, unless the context ends with the end of a turn
  std::vector<TokenId> tokens;
};

// Immutable; all methods may be called from any thread.
class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;

  // The prompt's tokens, ending where the assistant begins to speak. Control tokens spelled out in a message's content
  // are plain text. INVALID_ARGUMENT for an empty conversation or a role that the template does not know.
  virtual absl::StatusOr<std::vector<TokenId>> Format(const Tokenizer& tokenizer,
                                                      absl::Span<const ChatMessage> messages) const = 0;

  // The same for turns that follow what is in a context already, and the tokens that close the turn before them where
  // the model has not done so itself.
  virtual absl::StatusOr<AppendedTurns> FormatTurns(const Tokenizer& tokenizer,
                                                    absl::Span<const ChatMessage> messages) const = 0;

  // "chatml", "llama3".
  virtual absl::string_view name() const = 0;
};

// UNIMPLEMENTED, quoting the beginning of `jinja`, if it is none that is known.
absl::StatusOr<std::unique_ptr<ChatTemplate>> RecogniseChatTemplate(absl::string_view jinja);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_CHAT_TEMPLATE_H_
