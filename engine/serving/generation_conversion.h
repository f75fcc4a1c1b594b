// From the engine's values to the API's messages.

#ifndef FERMATA_ENGINE_SERVING_GENERATION_CONVERSION_H_
#define FERMATA_ENGINE_SERVING_GENERATION_CONVERSION_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/core/generation_info.h"
#include "engine/core/generation_state.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "proto/fermata/v1/generation.pb.h"

namespace fermata {

v1::Generation::State ToProto(GenerationState state);
v1::Generation::FinishReason ToProto(FinishReason reason);
v1::KvTier::Tier ToProto(KvTier tier);

void ToProto(const KvBlockCounts& blocks, v1::KvBlocks* proto);
void ToProto(const Usage& usage, v1::Usage* proto);
void ToProto(const GenerationInfo& info, v1::Generation* proto);

// Finite ones only.
void ToProto(absl::Time time, google::protobuf::Timestamp* proto);
void ToProto(absl::Duration duration, google::protobuf::Duration* proto);

// INVALID_ARGUMENT naming the value if it is none of the states a generation can be in.
absl::StatusOr<GenerationState> ToGenerationState(int state);

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_GENERATION_CONVERSION_H_
