// A real model with the vocabulary of the fake one, for the same tests on a real back end.

#ifndef FERMATA_TESTS_CONFORMANCE_SMALL_RUNNER_H_
#define FERMATA_TESTS_CONFORMANCE_SMALL_RUNNER_H_

#include <chrono>
#include <memory>
#include <string>

#include "engine/core/engine_options.h"
#include "engine/core/model_runner.h"

namespace fermata {

// Made-up weights, on "cpu" or "cuda"; each step takes `brake` more, so that tests find generations running. Crashes
// the test if it cannot be made.
std::unique_ptr<ModelRunner> MakeSmallRunner(const std::string& backend, std::chrono::microseconds brake,
                                             const EngineOptions& options);

}  // namespace fermata

#endif  // FERMATA_TESTS_CONFORMANCE_SMALL_RUNNER_H_
