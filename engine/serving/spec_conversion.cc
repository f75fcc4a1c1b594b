#include "engine/serving/spec_conversion.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/serving/status.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "xxhash.h"

namespace fermata {
namespace {

constexpr size_t kMaxNameBytes = 128;  // of tenant and traffic_class
constexpr int kMaxLabels = 64;
constexpr size_t kMaxLabelKeyBytes = 63;
constexpr size_t kMaxLabelValueBytes = 256;
constexpr size_t kMaxTokenBytes = 256;  // no vocabulary has a longer token
constexpr int64_t kMaxDurationSeconds = 365 * 24 * 3600;

absl::Status OutOfRange(absl::string_view field, absl::string_view value, absl::string_view allowed) {
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; allowed is ", allowed));
}

// From the system: a generator of our own, seeded with less, could draw the same id in two threads.
uint64_t Draw() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

absl::StatusOr<TokenId> ToTokenId(int32_t value, absl::string_view field, const ModelText& text) {
  if (value < 0 || value >= text.info.vocabulary_size) {
    return OutOfRange(field, absl::StrCat(value), absl::StrCat("0 to ", text.info.vocabulary_size - 1));
  }
  return TokenId{value};
}

SamplingParams CopyScalars(const v1::SamplingParams& from) {
  SamplingParams to;
  if (from.has_max_tokens()) to.max_tokens = from.max_tokens();
  if (from.has_temperature()) to.temperature = from.temperature();
  if (from.has_top_k()) to.top_k = from.top_k();
  if (from.has_top_p()) to.top_p = from.top_p();
  if (from.has_min_p()) to.min_p = from.min_p();
  if (from.has_repetition_penalty()) to.repetition_penalty = from.repetition_penalty();
  if (from.has_frequency_penalty()) to.frequency_penalty = from.frequency_penalty();
  if (from.has_presence_penalty()) to.presence_penalty = from.presence_penalty();
  to.seed = from.has_seed() ? static_cast<uint64_t>(from.seed()) : Draw();
  to.ignore_eos = from.ignore_eos();
  to.stop.assign(from.stop().begin(), from.stop().end());
  return to;
}

absl::StatusOr<SamplingParams> ToSamplingParams(const v1::SamplingParams& from, const ModelText& text) {
  SamplingParams to = CopyScalars(from);
  if (from.has_logprobs()) {
    // Below 0 the engine's form means none.
    if (from.logprobs() < 0) {
      return OutOfRange("sampling.logprobs", absl::StrCat(from.logprobs()),
                        absl::StrCat("0 to ", SamplingParams::kMaxLogprobs));
    }
    to.logprobs = from.logprobs();
  }
  for (const int32_t value : from.stop_token_ids()) {
    const absl::StatusOr<TokenId> token = ToTokenId(value, "sampling.stop_token_ids", text);
    if (!token.ok()) return token.status();
    to.stop_token_ids.push_back(*token);
  }
  for (const auto& [value, bias] : from.logit_bias()) {
    const absl::StatusOr<TokenId> token = ToTokenId(value, "sampling.logit_bias", text);
    if (!token.ok()) return token.status();
    to.logit_bias.emplace_back(*token, bias);
  }
  // A map has no order; the engine's form has one.
  std::sort(to.logit_bias.begin(), to.logit_bias.end());
  const absl::Status status = to.Validate(text.info.vocabulary_size);
  if (!status.ok()) return status;
  return to;
}

absl::StatusOr<absl::Duration> ToTimeout(const v1::GenerationSpec& spec) {
  if (!spec.has_timeout()) return absl::InfiniteDuration();
  return ToPositiveDuration(spec.timeout(), "timeout");
}

absl::StatusOr<OnDisconnect> ToOnDisconnect(v1::OnDisconnect::Action action, OnDisconnect otherwise) {
  switch (action) {
    case v1::OnDisconnect::ON_DISCONNECT_UNSPECIFIED:
      return otherwise;
    case v1::OnDisconnect::ABORT:
      return OnDisconnect::kAbort;
    case v1::OnDisconnect::CONTINUE:
      return OnDisconnect::kContinue;
    case v1::OnDisconnect::PAUSE:
      return OnDisconnect::kPause;
    default:
      return OutOfRange("on_disconnect", absl::StrCat(static_cast<int>(action)), "ABORT, CONTINUE or PAUSE");
  }
}

// Before it is tokenized, which takes time in proportion: what cannot possibly fit the context.
absl::Status CheckTextSize(absl::string_view field, size_t bytes, const ModelText& text) {
  const size_t limit = static_cast<size_t>(text.context_tokens) * kMaxTokenBytes;
  if (bytes <= limit) return absl::OkStatus();
  return OutOfRange(field, absl::StrCat(bytes, " bytes long"),
                    absl::StrCat("at most ", limit, ", more cannot fit --context_tokens=", text.context_tokens));
}

absl::Status CheckPromptTokens(size_t tokens, const ModelText& text) {
  const size_t limit = static_cast<size_t>(text.context_tokens) - 1;
  if (tokens >= 1 && tokens <= limit) return absl::OkStatus();
  return OutOfRange("prompt", absl::StrCat(tokens, " tokens long"),
                    absl::StrCat("1 to ", limit, ", one less than --context_tokens"));
}

absl::Status CheckName(absl::string_view field, const std::string& value) {
  if (value.size() <= kMaxNameBytes) return absl::OkStatus();
  return OutOfRange(field, absl::StrCat(value.size(), " bytes long"), absl::StrCat("at most ", kMaxNameBytes));
}

absl::Status CopyLabels(const v1::GenerationSpec& from, GenerationSpec& to) {
  if (from.labels_size() > kMaxLabels) {
    return OutOfRange("labels", absl::StrCat(from.labels_size(), " entries"), absl::StrCat("at most ", kMaxLabels));
  }
  for (const auto& [key, value] : from.labels()) {
    if (key.empty() || key.size() > kMaxLabelKeyBytes) {
      return OutOfRange("a key of labels", absl::StrCat(key.size(), " bytes long"),
                        absl::StrCat("1 to ", kMaxLabelKeyBytes));
    }
    if (value.size() > kMaxLabelValueBytes) {
      return OutOfRange(absl::StrCat("labels[\"", absl::CHexEscape(key), "\"]"),
                        absl::StrCat(value.size(), " bytes long"), absl::StrCat("at most ", kMaxLabelValueBytes));
    }
    to.labels.emplace_back(key, value);
  }
  std::sort(to.labels.begin(), to.labels.end());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ChatMessage>> ToMessages(const v1::Chat& chat, const ModelText& text) {
  if (text.chat_template == nullptr) return text.chat_template_status;
  std::vector<ChatMessage> messages;
  size_t bytes = 0;
  for (const v1::ChatMessage& message : chat.messages()) {
    messages.push_back({message.role(), message.content()});
    bytes += message.content().size();
  }
  const absl::Status size = CheckTextSize("chat", bytes, text);
  if (!size.ok()) return size;
  return messages;
}

}  // namespace

absl::StatusOr<absl::Duration> ToPositiveDuration(const google::protobuf::Duration& from, absl::string_view field) {
  const bool legal = from.seconds() >= 0 && from.seconds() <= kMaxDurationSeconds && from.nanos() >= 0 &&
                     from.nanos() <= 999'999'999 && (from.seconds() > 0 || from.nanos() > 0);
  if (!legal) {
    return OutOfRange(field, absl::StrCat(from.seconds(), " s ", from.nanos(), " ns"),
                      absl::StrCat("above 0, at most ", kMaxDurationSeconds, " s"));
  }
  return absl::Seconds(from.seconds()) + absl::Nanoseconds(from.nanos());
}

absl::StatusOr<std::vector<TokenId>> ToTokens(const v1::Chat& chat, const ModelText& text) {
  const absl::StatusOr<std::vector<ChatMessage>> messages = ToMessages(chat, text);
  if (!messages.ok()) return messages.status();
  return text.chat_template->Format(*text.tokenizer, *messages);
}

absl::StatusOr<std::vector<TokenId>> ToTokens(const std::string& prompt, const ModelText& text) {
  const absl::Status size = CheckTextSize("text", prompt.size(), text);
  if (!size.ok()) return size;
  return text.tokenizer->Encode(prompt, /*parse_special=*/true, /*add_bos=*/true);
}

absl::StatusOr<std::vector<TokenId>> ToTokens(const v1::Prompt& prompt, const ModelText& text) {
  switch (prompt.prompt_case()) {
    case v1::Prompt::kText:
      return ToTokens(prompt.text(), text);
    case v1::Prompt::kChat:
      return ToTokens(prompt.chat(), text);
    case v1::Prompt::kTokenIds: {
      std::vector<TokenId> tokens;
      tokens.reserve(prompt.token_ids().token_ids_size());
      for (const int32_t value : prompt.token_ids().token_ids()) {
        const absl::StatusOr<TokenId> token = ToTokenId(value, "prompt.token_ids", text);
        if (!token.ok()) return token.status();
        tokens.push_back(*token);
      }
      return tokens;
    }
    case v1::Prompt::PROMPT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("prompt is not set; it needs text, token_ids or chat");
}

absl::StatusOr<AppendedTurns> ToAppendedTokens(const v1::Prompt& append, const ModelText& text) {
  AppendedTurns turns;
  switch (append.prompt_case()) {
    case v1::Prompt::kText: {
      const absl::Status size = CheckTextSize("append.text", append.text().size(), text);
      if (!size.ok()) return size;
      absl::StatusOr<std::vector<TokenId>> tokens =
          text.tokenizer->Encode(append.text(), /*parse_special=*/true, /*add_bos=*/false);
      if (!tokens.ok()) return tokens.status();
      turns.tokens = *std::move(tokens);
      return turns;
    }
    case v1::Prompt::kChat: {
      const absl::StatusOr<std::vector<ChatMessage>> messages = ToMessages(append.chat(), text);
      if (!messages.ok()) return messages.status();
      return text.chat_template->FormatTurns(*text.tokenizer, *messages);
    }
    case v1::Prompt::kTokenIds:
    case v1::Prompt::PROMPT_NOT_SET: {
      absl::StatusOr<std::vector<TokenId>> tokens = ToTokens(append, text);
      if (!tokens.ok()) return tokens.status();
      turns.tokens = *std::move(tokens);
      return turns;
    }
  }
  return turns;
}

absl::StatusOr<GenerationSpec> ToGenerationSpec(const v1::GenerationSpec& from, OnDisconnect on_disconnect,
                                                const ModelText& text) {
  GenerationSpec to;
  to.hold_on_stop = from.hold_on_stop();
  absl::Status status = CheckName("tenant", from.tenant());
  if (status.ok()) status = CheckName("traffic_class", from.traffic_class());
  if (status.ok()) status = CopyLabels(from, to);
  if (!status.ok()) return status;
  absl::StatusOr<SamplingParams> sampling = ToSamplingParams(from.sampling(), text);
  if (!sampling.ok()) return sampling.status();
  to.sampling = *std::move(sampling);
  const absl::StatusOr<absl::Duration> timeout = ToTimeout(from);
  if (!timeout.ok()) return timeout.status();
  to.timeout = *timeout;
  const absl::StatusOr<OnDisconnect> action = ToOnDisconnect(from.on_disconnect(), on_disconnect);
  if (!action.ok()) return action.status();
  to.on_disconnect = *action;
  to.priority = from.priority();
  to.tenant = from.tenant();
  to.traffic_class = from.traffic_class();
  // Last, since it is the dearest.
  absl::StatusOr<std::vector<TokenId>> prompt = ToTokens(from.prompt(), text);
  if (!prompt.ok()) return prompt.status();
  status = CheckPromptTokens(prompt->size(), text);
  if (!status.ok()) return status;
  to.prompt = *std::move(prompt);
  return to;
}

absl::StatusOr<GenerationId> ToNewGenerationId(const std::string& id) {
  if (!id.empty()) return GenerationId::Parse(id);
  return GenerationId::Parse(
      absl::StrCat("g-", absl::Hex(Draw(), absl::kZeroPad16), absl::Hex(Draw(), absl::kZeroPad16)));
}

std::string DigestBody(const v1::GenerationSpec& spec, bool hold) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    spec.SerializeToCodedStream(&coded);
  }
  bytes.push_back(hold ? 1 : 0);
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return absl::StrCat(absl::Hex(hash.high64, absl::kZeroPad16), absl::Hex(hash.low64, absl::kZeroPad16));
}

}  // namespace fermata
