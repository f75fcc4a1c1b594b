// The engine as GetEngine shows it.

#ifndef FERMATA_CONTROL_ENGINE_CONVERSION_H_
#define FERMATA_CONTROL_ENGINE_CONVERSION_H_

#include "absl/strings/string_view.h"
#include "engine/core/commands.h"
#include "engine/runtime/engine_runtime.h"
#include "proto/fermata/v1/control_service.pb.h"

namespace fermata {

// The version of this server.
inline constexpr char kVersion[] = "0.1.0";

// `info` is what the engine answered; limits, speed and start time are asked of `runtime`.
void ToProto(const EngineInfo& info, const EngineRuntime& runtime, absl::string_view model_name, v1::Engine* proto);

}  // namespace fermata

#endif  // FERMATA_CONTROL_ENGINE_CONVERSION_H_
