#include "engine/model/chat_template.h"

#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

constexpr absl::string_view kRoles[] = {"system", "user", "assistant", "tool"};
constexpr size_t kQuotedBytes = 80;

absl::Status CheckMessages(absl::Span<const ChatMessage> messages) {
  if (messages.empty()) return absl::InvalidArgumentError("chat.messages is empty; at least one message is needed");
  for (const ChatMessage& message : messages) {
    if (!absl::c_linear_search(kRoles, message.role)) {
      return absl::InvalidArgumentError(absl::StrCat("chat role \"", absl::CHexEscape(message.role),
                                                     "\" is not known; system, user, assistant and tool are"));
    }
  }
  return absl::OkStatus();
}

// Puts a prompt together from control tokens and plain text, so that a control token spelled in a message stays text.
class PromptBuilder {
 public:
  explicit PromptBuilder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void Control(absl::string_view text) { Add(text, /*parse_special=*/true); }
  void Plain(absl::string_view text) { Add(text, /*parse_special=*/false); }

  absl::StatusOr<std::vector<TokenId>> Take() {
    if (!status_.ok()) return status_;
    return std::move(tokens_);
  }

 private:
  void Add(absl::string_view text, bool parse_special) {
    if (!status_.ok()) return;
    absl::StatusOr<std::vector<TokenId>> tokens = tokenizer_.Encode(text, parse_special, /*add_bos=*/false);
    status_ = tokens.status();
    if (status_.ok()) tokens_.insert(tokens_.end(), tokens->begin(), tokens->end());
  }

  const Tokenizer& tokenizer_;
  absl::Status status_;
  std::vector<TokenId> tokens_;
};

absl::StatusOr<AppendedTurns> Join(absl::string_view turn_end, const Tokenizer& tokenizer, PromptBuilder& turns) {
  PromptBuilder end(tokenizer);
  end.Control(turn_end);
  absl::StatusOr<std::vector<TokenId>> end_tokens = end.Take();
  if (!end_tokens.ok()) return end_tokens.status();
  absl::StatusOr<std::vector<TokenId>> tokens = turns.Take();
  if (!tokens.ok()) return tokens.status();
  return AppendedTurns{*std::move(end_tokens), *std::move(tokens)};
}

// <|im_start|>role\ncontent<|im_end|>\n for each message.
class ChatMl : public ChatTemplate {
 public:
  // `default_system` opens conversations that begin without a system message; empty: nothing does.
  explicit ChatMl(absl::string_view default_system) : default_system_(default_system) {}

  absl::StatusOr<std::vector<TokenId>> Format(const Tokenizer& tokenizer,
                                              absl::Span<const ChatMessage> messages) const override {
    const absl::Status status = CheckMessages(messages);
    if (!status.ok()) return status;
    PromptBuilder prompt(tokenizer);
    if (!default_system_.empty() && messages[0].role != "system") Add({"system", default_system_}, prompt);
    AddTurns(messages, prompt);
    return prompt.Take();
  }

  absl::StatusOr<AppendedTurns> FormatTurns(const Tokenizer& tokenizer,
                                            absl::Span<const ChatMessage> messages) const override {
    const absl::Status status = CheckMessages(messages);
    if (!status.ok()) return status;
    PromptBuilder turns(tokenizer);
    turns.Plain("\n");
    AddTurns(messages, turns);
    return Join("<|im_end|>", tokenizer, turns);
  }

  absl::string_view name() const override { return "chatml"; }

 private:
  static void AddTurns(absl::Span<const ChatMessage> messages, PromptBuilder& prompt) {
    for (const ChatMessage& message : messages) Add(message, prompt);
    prompt.Control("<|im_start|>");
    prompt.Plain("assistant\n");
  }

  static void Add(const ChatMessage& message, PromptBuilder& prompt) {
    prompt.Control("<|im_start|>");
    // One piece: merges may join the line end with what follows it.
    prompt.Plain(absl::StrCat(message.role, "\n", message.content));
    prompt.Control("<|im_end|>");
    prompt.Plain("\n");
  }

  std::string default_system_;
};

// <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|> for each message.
class Llama3 : public ChatTemplate {
 public:
  absl::StatusOr<std::vector<TokenId>> Format(const Tokenizer& tokenizer,
                                              absl::Span<const ChatMessage> messages) const override {
    const absl::Status status = CheckMessages(messages);
    if (!status.ok()) return status;
    PromptBuilder prompt(tokenizer);
    prompt.Control("<|begin_of_text|>");
    AddTurns(messages, prompt);
    return prompt.Take();
  }

  absl::StatusOr<AppendedTurns> FormatTurns(const Tokenizer& tokenizer,
                                            absl::Span<const ChatMessage> messages) const override {
    const absl::Status status = CheckMessages(messages);
    if (!status.ok()) return status;
    PromptBuilder turns(tokenizer);
    AddTurns(messages, turns);
    return Join("<|eot_id|>", tokenizer, turns);
  }

  absl::string_view name() const override { return "llama3"; }

 private:
  static void AddTurns(absl::Span<const ChatMessage> messages, PromptBuilder& prompt) {
    for (const ChatMessage& message : messages) {
      Header(message.role, prompt);
      prompt.Plain(absl::StrCat("\n\n", absl::StripAsciiWhitespace(message.content)));
      prompt.Control("<|eot_id|>");
    }
    Header("assistant", prompt);
    prompt.Plain("\n\n");
  }

  static void Header(absl::string_view role, PromptBuilder& prompt) {
    prompt.Control("<|start_header_id|>");
    prompt.Plain(role);
    prompt.Control("<|end_header_id|>");
  }
};

// The system message that a ChatML template opens with by itself, where its text is quoted in the template.
absl::string_view DefaultSystem(absl::string_view jinja) {
  constexpr absl::string_view kOpening = "<|im_start|>system\n";
  const size_t opening = jinja.find(kOpening.data(), 0, kOpening.size());
  if (opening == absl::string_view::npos) return "";
  const absl::string_view rest = jinja.substr(opening + kOpening.size());
  const size_t end = rest.find("<|im_end|>");
  const absl::string_view message = rest.substr(0, end);
  // One that is put together by the template's own code is not a quotation.
  if (end == absl::string_view::npos || absl::StrContains(message, "'") || absl::StrContains(message, "{")) return "";
  return message;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> RecogniseChatTemplate(absl::string_view jinja) {
  if (absl::StrContains(jinja, "<|im_start|>") && absl::StrContains(jinja, "<|im_end|>")) {
    return std::make_unique<ChatMl>(DefaultSystem(jinja));
  }
  if (absl::StrContains(jinja, "<|start_header_id|>") && absl::StrContains(jinja, "<|eot_id|>")) {
    return std::make_unique<Llama3>();
  }
  return absl::UnimplementedError(absl::StrCat("the model's chat template is none that is known (ChatML, Llama 3): \"",
                                               absl::CHexEscape(jinja.substr(0, kQuotedBytes)), "\""));
}

}  // namespace fermata
