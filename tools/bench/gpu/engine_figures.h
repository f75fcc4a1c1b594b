// The figures of the engine as a whole: its scheduler, its threads and its back end, without a network.

#ifndef FERMATA_TOOLS_BENCH_GPU_ENGINE_FIGURES_H_
#define FERMATA_TOOLS_BENCH_GPU_ENGINE_FIGURES_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/core/engine_options.h"
#include "engine/core/token_decoder.h"
#include "tools/bench/gpu/engine_session.h"
#include "tools/bench/gpu/measured_runner.h"

namespace fermata {

// How much of everything: other numbers where a CPU is to try the same.
struct FigureSizes {
  // One decode to measure.
  struct Decode {
    int32_t streams;
    int32_t prompt;
    int32_t steps;
    double at_most_ms;  // what is aimed at; 0: nothing
  };
  std::vector<Decode> decodes;

  int32_t fill_step_tokens = 8192;  // of a step, at most, where contexts are to be filled before anything is measured
  int32_t slots = 64;               // of the figures in which some are held
  int32_t context = 1024;           // of what runs meanwhile
  int32_t long_context = 8000;      // of what is parked
  int32_t interactive = 128;        // tokens of an interactive prompt
  int32_t arrivals = 150;           // of those
  int32_t pauses = 150;             // measured
  int32_t parks = 5;                // measured
  double swap_span_s = 3;           // measured, with swaps and without
  int32_t workload_slots = 256;     // of the workload and of the streams
  int32_t workload_requests = 0;    // of the file, at most; 0: all
  int32_t stream_prompt = 128;
  int32_t stream_output = 256;
  double block_ms = 25;            // to park and to restore, at most
  double interactive_ms = 30;      // to the first token, at most
  double workload_per_second = 0;  // tokens; 0: nothing is aimed at
  bool absolute_aims = false;      // whether aims in milliseconds and tokens a second mean anything here
};

// One length of a workload, in tokens.
struct Request {
  int32_t prompt;
  int32_t output;
};

// Each runs engines of its own over one runner, and prints one JSON object a line. What is aimed at stands beside what
// was reached: `met`, and `ratio`, which is 1 at the aim and above it where it is better.
class EngineFigures {
 public:
  // `base` has the sizes of the pool; `decoder` and `records` must outlive this.
  EngineFigures(FigureSizes sizes, const EngineOptions& base, const TokenDecoder& decoder, RunnerRecords& records)
      : sizes_(std::move(sizes)), base_(base), decoder_(decoder), records_(records) {}

  // Steps that only decode, and how long the engine takes between two.
  void Decode();

  // All requests at once.
  void Workload(const std::vector<Request>& requests);

  // How soon an urgent newcomer has its first token while less urgent ones hold every slot.
  void Interactive();

  // Preempt to its answer, Continue to the next token.
  void Pause();

  // KV of one long generation to the host and back while the others decode.
  void Park();

  // What swapping 50 a second costs, with twice as many resident as there are slots.
  void Swaps();

  // Streams that all decode, as clients over gRPC are measured by serve_load.
  void Streams();

 private:
  EngineOptions Options(int32_t slots) const;

  // Asks for `count` generations that go on for ever, and waits until all run. Their names.
  static std::vector<std::string> Fill(EngineSession& session, const std::string& prefix, int32_t count, int32_t prompt,
                                       int32_t priority);

  // Tokens a second over one span, with as many swaps a second, or one of all in the middle.
  double SwapSpan(EngineSession& session, int32_t swaps_per_second, std::vector<std::string>& running,
                  std::vector<std::string>& paused) const;

  const FigureSizes sizes_;
  const EngineOptions base_;
  const TokenDecoder& decoder_;
  RunnerRecords& records_;
};

}  // namespace fermata

#endif  // FERMATA_TOOLS_BENCH_GPU_ENGINE_FIGURES_H_
