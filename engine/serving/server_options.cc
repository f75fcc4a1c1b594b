#include "engine/serving/server_options.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace fermata {
namespace {

using Setter = std::function<absl::Status(const std::string& value, ServerOptions& options)>;

struct Flag {
  const char* name;
  const char* value;  // what it takes, for the help; null: nothing
  const char* help;
  Setter set;
};

absl::Status Bad(const std::string& value, absl::string_view allowed) {
  return absl::InvalidArgumentError(absl::StrCat("is \"", value, "\"; allowed is ", allowed));
}

// A whole number from `least` on, put where `field` says.
template <typename T, typename Field>
Setter Number(Field field, int64_t least, int64_t most = std::numeric_limits<T>::max()) {
  return [field, least, most](const std::string& value, ServerOptions& options) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(value, &number) || number < least || number > most) {
      return Bad(value, absl::StrCat("a whole number from ", least, " to ", most));
    }
    field(options) = static_cast<T>(number);
    return absl::OkStatus();
  };
}

template <typename Field>
Setter Span(Field field) {
  return [field](const std::string& value, ServerOptions& options) {
    absl::Duration duration;
    if (!absl::ParseDuration(value, &duration) || duration < absl::ZeroDuration()) {
      return Bad(value, "a duration such as 25s, 10m or 500ms");
    }
    field(options) = duration;
    return absl::OkStatus();
  };
}

// One of two words.
template <typename Field, typename T>
Setter Choice(Field field, std::string first, T first_value, std::string second, T second_value) {
  return [=](const std::string& value, ServerOptions& options) {
    if (value != first && value != second) return Bad(value, absl::StrCat(first, " or ", second));
    field(options) = value == first ? first_value : second_value;
    return absl::OkStatus();
  };
}

template <typename Field>
Setter Text(Field field) {
  return [=](const std::string& value, ServerOptions& options) {
    field(options) = value;
    return absl::OkStatus();
  };
}

// NAME,max_running=N,max_kv_blocks=N,reserved=N,max_queued=N: what is not there has no cap.
absl::Status AddClass(const std::string& value, ServerOptions& options) {
  const std::vector<std::string> parts = absl::StrSplit(value, ',');
  TrafficClass added;
  added.name = parts[0];
  const std::pair<absl::string_view, int32_t*> fields[] = {{"max_running", &added.max_running},
                                                           {"max_kv_blocks", &added.max_kv_blocks},
                                                           {"reserved", &added.reserved},
                                                           {"max_queued", &added.max_queued}};
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::pair<std::string, std::string> part = absl::StrSplit(parts[i], absl::MaxSplits('=', 1));
    const auto* field =
        std::find_if(std::begin(fields), std::end(fields), [&](const auto& one) { return one.first == part.first; });
    if (field == std::end(fields) || !absl::SimpleAtoi(part.second, field->second)) {
      return Bad(value, "NAME, then max_running=N, max_kv_blocks=N, reserved=N or max_queued=N, with commas");
    }
  }
  options.engine.classes.push_back(std::move(added));
  return absl::OkStatus();
}

absl::Status SetPrefixCache(const std::string& value, ServerOptions& options) {
  const std::pair<absl::string_view, PrefixSharing> words[] = {
      {"off", PrefixSharing::kOff}, {"tenant", PrefixSharing::kTenant}, {"all", PrefixSharing::kAll}};
  for (const auto& [word, sharing] : words) {
    if (value != word) continue;
    options.engine.prefix_sharing = sharing;
    return absl::OkStatus();
  }
  return Bad(value, "off, tenant or all");
}

absl::Status SetLogLevel(const std::string& value, ServerOptions& options) {
  if (value != "info" && value != "warning" && value != "error") return Bad(value, "info, warning or error");
  options.log_level = value;
  return absl::OkStatus();
}

absl::Status SetKvType(const std::string& value, ServerOptions& options) {
  if (value != "f16" && value != "bf16" && value != "f32") return Bad(value, "f16, bf16 or f32");
  options.kv_type = value;
  return absl::OkStatus();
}

std::vector<Flag> CudaFlags() {
  using O = ServerOptions;
  return {
      {"batch_invariant", nullptr, "on CUDA: tokens do not depend on what else is in a step; slower",
       [](const std::string&, O& o) {
         o.batch_invariant = true;
         return absl::OkStatus();
       }},
      {"gpu_memory_fraction", "F", "of the GPU's memory, for weights and KV; the rest is for steps; default 0.9",
       [](const std::string& v, O& o) {
         const bool is_number = absl::SimpleAtod(v, &o.gpu_memory_fraction);
         const bool allowed = is_number && o.gpu_memory_fraction > 0 && o.gpu_memory_fraction <= 1;
         return allowed ? absl::OkStatus() : Bad(v, "a number above 0, at most 1");
       }},
  };
}

std::vector<Flag> ProcessFlags() {
  using O = ServerOptions;
  return {
      {"model", "PATH", "a .gguf file, or a folder with config.json and safetensors; needed",
       Text([](O& o) -> std::string& { return o.model_path; })},
      {"load", "file|dummy", "dummy: weights are made up from a folder's config.json, for benchmarks; default file",
       Choice([](O& o) -> bool& { return o.dummy_weights; }, "file", false, "dummy", true)},
      {"backend", "cpu|cuda", "what computes; cuda needs a build with --config=cuda; default cpu",
       Choice([](O& o) -> bool& { return o.cuda; }, "cpu", false, "cuda", true)},
      {"cpu_kernels", "fast|exact", "exact: float32 throughout, the reference; default fast",
       Choice([](O& o) -> bool& { return o.exact_cpu_kernels; }, "fast", false, "exact", true)},
      {"cpu_instructions", "NAME",
       "of the fast kernels, for measurements: plain, avx2, avx-vnni, avx512-vnni or neon-dotprod; default the best",
       Text([](O& o) -> std::string& { return o.cpu_instructions; })},
      {"kv_type", "f16|bf16|f32", "of the KV cache on the CPU; default f16, with --cpu_kernels=exact f32", SetKvType},
      {"data_address", "HOST:PORT", "of the data plane; port 0 picks a free one; default 127.0.0.1:50051",
       Text([](O& o) -> std::string& { return o.data_address; })},
      {"control_address", "ADDRESS,...", "of the control plane; unix:PATH too; default 127.0.0.1:50052",
       [](const std::string& v, O& o) {
         o.control_addresses = absl::StrSplit(v, ',', absl::SkipEmpty());
         return o.control_addresses.empty() ? Bad(v, "one address or several") : absl::OkStatus();
       }},
      {"allow_insecure_control", nullptr, "lets a control address be other than loopback, without TLS",
       [](const std::string&, O& o) {
         o.allow_insecure_control = true;
         return absl::OkStatus();
       }},
      {"metrics_address", "HOST:PORT", "where Prometheus reads /metrics; port 0 picks a free one; default none",
       Text([](O& o) -> std::string& { return o.metrics_address; })},
      {"drain_timeout", "DURATION", "how long SIGTERM waits for what runs; default 25s",
       Span([](O& o) -> absl::Duration& { return o.drain_timeout; })},
      {"disconnect_lease", "DURATION", "how long a generation paused by a disconnect is kept; default 10m",
       Span([](O& o) -> absl::Duration& { return o.engine.disconnect_lease; })},
      {"log_level", "info|warning|error", "default info", SetLogLevel},
  };
}

std::vector<Flag> SchedulingFlags() {
  using O = ServerOptions;
  return {
      {"policy", "priority|fcfs", "the order of generations; default priority",
       Choice([](O& o) -> SchedulePolicy& { return o.engine.policy; }, "priority", SchedulePolicy::kPriority, "fcfs",
              SchedulePolicy::kFcfs)},
      {"displacement", "running|never", "whether a more urgent one takes a running one's slot; default running",
       Choice([](O& o) -> Displacement& { return o.engine.displacement; }, "running", Displacement::kRunning, "never",
              Displacement::kNever)},
      {"allow_recompute", nullptr, "drops KV, and computes it again later, where blocks run out and no tier has room",
       [](const std::string&, O& o) {
         o.engine.allow_recompute = true;
         return absl::OkStatus();
       }},
      {"prefix_cache", "off|tenant|all", "who shares the KV of a common beginning; default tenant", SetPrefixCache},
      {"class", "NAME,KEY=N,...", "repeated: caps of a traffic class: max_running, max_kv_blocks, reserved, max_queued",
       AddClass},
      {"aging", "DURATION", "one level of priority gained for so long a wait; default off",
       Span([](O& o) -> absl::Duration& { return o.engine.aging; })},
      {"aging_levels", "N", "at most so many; default 10",
       Number<int32_t>([](O& o) -> int32_t& { return o.engine.aging_levels; }, 1)},
      {"data_min_priority", "N", "the most urgent that data-plane clients get; default no limit",
       [](const std::string& v, O& o) {
         int32_t number = 0;
         if (!absl::SimpleAtoi(v, &number)) return Bad(v, "a whole number");
         o.data_min_priority = number;
         return absl::OkStatus();
       }},
  };
}

std::vector<Flag> LimitFlags() {
  using O = ServerOptions;
  return {
      {"threads", "N", "that compute; default as many as there are cores",
       Number<int32_t>([](O& o) -> int32_t& { return o.threads; }, 1, 1024)},
      {"max_running", "N", "generations in one step; default 64",
       Number<int32_t>([](O& o) -> int32_t& { return o.engine.max_running; }, 1, 4096)},
      {"max_queued", "N", "newcomers that wait; default 10000",
       Number<int32_t>([](O& o) -> int32_t& { return o.engine.max_queued; }, 1)},
      {"max_live", "N", "generations that are not finished; default 100000",
       Number<int32_t>([](O& o) -> int32_t& { return o.engine.max_live; }, 1)},
      {"max_finished", "N", "finished ones kept for Get and Attach; default 10000",
       Number<int32_t>([](O& o) -> int32_t& { return o.engine.max_finished; }, 0)},
      {"finished_age", "DURATION", "how long; default 10m",
       Span([](O& o) -> absl::Duration& { return o.engine.finished_age; })},
      {"context_tokens", "N", "longest prompt + output; default the model's",
       Number<int32_t>([](O& o) -> int32_t& { return o.engine.context_tokens; }, 2)},
      {"kv_bytes", "N",
       "of KV cache; default what all slots could use, at most a quarter of memory; on CUDA, what is left",
       Number<int64_t>([](O& o) -> int64_t& { return o.kv_bytes; }, 1)},
      {"kv_host_bytes", "N", "of KV in the host's memory, for what is paused or displaced; default 0, none",
       Number<int64_t>([](O& o) -> int64_t& { return o.kv_host_bytes; }, 0)},
      {"kv_disk_dir", "FOLDER", "for KV in files, where paused generations outlive a restart; default none",
       Text([](O& o) -> std::string& { return o.kv_disk_dir; })},
      {"kv_disk_bytes", "N", "of KV there; default nine tenths of what is free",
       Number<int64_t>([](O& o) -> int64_t& { return o.kv_disk_bytes; }, 0)},
      {"block_tokens", "N", "tokens in a KV block; default 16",
       Number<int32_t>([](O& o) -> int32_t& { return o.engine.block_tokens; }, 1, 4096)},
      {"step_tokens", "N", "tokens in a step; default what takes about 100 ms",
       Number<int32_t>([](O& o) -> int32_t& { return o.engine.step_tokens; }, 1, 65536)},
  };
}

std::vector<Flag> AllFlags() {
  std::vector<Flag> flags;
  for (std::vector<Flag>& some :
       std::vector<std::vector<Flag>>{ProcessFlags(), CudaFlags(), SchedulingFlags(), LimitFlags()}) {
    for (Flag& flag : some) flags.push_back(std::move(flag));
  }
  return flags;
}

// True if only this machine can reach the address: by its form, for a name may mean anything.
bool IsLoopback(absl::string_view address) {
  if (absl::StartsWith(address, "unix:")) return true;
  const std::string host(address.substr(0, address.rfind(':')));
  if (host == "localhost" || host == "[::1]") return true;
  in_addr parsed;
  return inet_pton(AF_INET, host.c_str(), &parsed) == 1 && ntohl(parsed.s_addr) >> 24 == IN_LOOPBACKNET;
}

absl::Status Check(const ServerOptions& options) {
  if (options.model_path.empty())
    return absl::InvalidArgumentError("--model is needed: the path of a .gguf file or of a safetensors folder");
  for (const std::string& address : options.control_addresses) {
    if (IsLoopback(address) || options.allow_insecure_control) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--control_address=", address,
                     " is not loopback, and whoever reaches it controls everything: use 127.0.0.1 or unix:PATH, or "
                     "say --allow_insecure_control"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ServerOptions> ParseServerOptions(int argc, char** argv) {
  const std::vector<Flag> flags = AllFlags();
  std::vector<option> options;
  for (const Flag& flag : flags) {
    options.push_back({flag.name, flag.value == nullptr ? no_argument : required_argument, nullptr, 0});
  }
  options.push_back({"help", no_argument, nullptr, 'h'});
  options.push_back({nullptr, 0, nullptr, 0});

  ServerOptions result;
  result.engine.context_tokens = 0;
  result.engine.step_tokens = 0;
  result.engine.prefix_sharing = PrefixSharing::kTenant;
  opterr = 0;
  optind = 1;
  int index = 0;
  for (int code; (code = getopt_long(argc, argv, "", options.data(), &index)) != -1;) {
    if (code == 'h') {
      result.help = true;
      return result;
    }
    if (code == '?') {
      return absl::InvalidArgumentError(
          absl::StrCat(argv[optind - 1], " is no flag of this server, or lacks its value; --help lists them"));
    }
    const absl::Status status = flags[index].set(optarg == nullptr ? "" : optarg, result);
    if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat("--", flags[index].name, " ", status.message()));
  }
  if (optind < argc) {
    return absl::InvalidArgumentError(absl::StrCat("\"", argv[optind], "\" is no flag; --help lists them"));
  }
  const absl::Status status = Check(result);
  if (!status.ok()) return status;
  return result;
}

std::string ServerHelp() {
  std::string help = "fermata: an LLM inference server whose generations can be held and continued.\n\nFlags:\n";
  for (const Flag& flag : AllFlags()) {
    const std::string name =
        absl::StrCat("  --", flag.name, flag.value == nullptr ? "" : "=", flag.value == nullptr ? "" : flag.value);
    absl::StrAppend(&help, name, std::string(name.size() < 36 ? 36 - name.size() : 1, ' '), flag.help, "\n");
  }
  return help;
}

}  // namespace fermata
