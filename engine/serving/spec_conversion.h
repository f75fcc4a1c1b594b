// From what a client asks for to what the engine runs.

#ifndef FERMATA_ENGINE_SERVING_SPEC_CONVERSION_H_
#define FERMATA_ENGINE_SERVING_SPEC_CONVERSION_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/generation_spec.h"
#include "engine/core/ids.h"
#include "engine/serving/model_text.h"
#include "proto/fermata/v1/generation.pb.h"

namespace fermata {

// Checks every field and tokenizes the prompt. INVALID_ARGUMENT naming the field, its value and the allowed range;
// UNIMPLEMENTED naming a field that is not served yet. `on_disconnect` is what UNSPECIFIED means. Draws a seed where
// none is given.
absl::StatusOr<GenerationSpec> ToGenerationSpec(const v1::GenerationSpec& spec, OnDisconnect on_disconnect,
                                                const ModelText& text);

// INVALID_ARGUMENT naming `field` unless it is above 0 and at most a year.
absl::StatusOr<absl::Duration> ToPositiveDuration(const google::protobuf::Duration& duration, absl::string_view field);

// The tokens of a prompt: of one that could not fit the context by far, none are worked out (INVALID_ARGUMENT).
absl::StatusOr<std::vector<TokenId>> ToTokens(const v1::Prompt& prompt, const ModelText& text);
absl::StatusOr<std::vector<TokenId>> ToTokens(const std::string& prompt, const ModelText& text);
absl::StatusOr<std::vector<TokenId>> ToTokens(const v1::Chat& chat, const ModelText& text);

// The tokens of what is appended to a context: as of a prompt, but without what begins one. Of a chat: the new turns.
absl::StatusOr<AppendedTurns> ToAppendedTokens(const v1::Prompt& append, const ModelText& text);

// Parses `id`; an empty one becomes one of the server's own choice.
absl::StatusOr<GenerationId> ToNewGenerationId(const std::string& id);

// Equal for equal bodies, and only for them but for 1 in 2^128: a hash of spec and hold, with unset fields told from
// set ones.
std::string DigestBody(const v1::GenerationSpec& spec, bool hold);

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_SPEC_CONVERSION_H_
