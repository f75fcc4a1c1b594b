"""Measures Fermata beside llama.cpp on this machine's CPU, in one run: rounds of one after the other, and medians.

Prints one JSON object a line: what the machine gives at most, a row for each measurement, clients over gRPC, and the
start of the server. With --save, all of it goes to docs/benchmarks/CPU.json too, beside the other instruction sets.
"""

import argparse
import json
import pathlib
import re
import subprocess

from tools.bench import cpu_gguf, cpu_llama, cpu_report
from tools.bench.serve_server import ROOT, Server

DEPTH = 4000
CLIENTS = (8, 32)
STEP_TOKENS = 512  # as in cpu_bench, and not what the server finds at its start, for which a busy moment is enough


def bench(prefix, name, *arguments):
    """The objects that one of our benchmarks prints."""
    done = subprocess.run([*prefix, ROOT / "bazel-bin/tools/bench" / name, *arguments], check=True,
                          stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def cpu_facts():
    """(the CPU's name, the widest of our instruction sets that it has)."""
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")

    def field(name):
        found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
        return found.group(1).strip() if found else "unknown"

    name = f"{field('model name')} (family {field('cpu family')}, model {field('model')})"
    return name, "avx512-vnni" if "avx512_vnni" in field("flags").split() else "avx2"


def measure(options):
    """All that is printed, as a dict."""
    common = [f"--model={options.model}", f"--threads={options.threads}", f"--instructions={options.instructions}",
              "--rounds=1", f"--output={options.output}"]
    programs = None if options.serve_only else cpu_llama.build(options.instructions)
    ours, theirs, loads, starts = [], [], [], []
    for _ in range(options.rounds):
        if not options.serve_only:
            lines = bench(options.prefix, "cpu_bench", *common, f"--depth={DEPTH}")
            ours.append(cpu_report.fermata_rates(lines, DEPTH))
        with Server(options.model, options.threads, options.instructions) as server:
            starts.append((server.start_s, server.peak_bytes()))
        # Each beside the engine's own figure, for the machine's pace changes from minute to minute.
        for clients in CLIENTS:
            own = bench(options.prefix, "cpu_bench", *common, "--prefill=0", f"--streams={clients}")
            with Server(options.model, options.threads, options.instructions,
                        [f"--step_tokens={STEP_TOKENS}"]) as server:
                load = server.load(clients, options.output, options.prefix)
            loads.append({**load, "engine_tokens_per_s":
                          cpu_report.fermata_rates(own, DEPTH)[f"decode_{clients}"]})
        if programs is not None:
            theirs.append(cpu_llama.measure(programs, options.model, options.threads, DEPTH,
                                            options.prefix))
    floors = cpu_gguf.read_floors(options.model)
    result = {"ceilings": cpu_report.ceilings_of(bench(options.prefix, "cpu_ceilings",
                                                       f"--threads={options.threads}"), options.instructions),
              "floors": floors, "rows": [], "serve": cpu_report.serve_rows(loads),
              "start": cpu_report.start_row(starts, floors["file_bytes"])}
    if theirs:
        result["rows"] = cpu_report.side_by_side(ours, theirs, floors, options.instructions)
    return result


def save(result, cpu, options):
    """Puts `result` into the CPU's file, as the column of its instruction set."""
    folder = ROOT / "docs/benchmarks"
    folder.mkdir(exist_ok=True)
    path = folder / (re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-") + ".json")
    whole = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"columns": {}}
    whole.update({"cpu": cpu, "threads": options.threads, "model": pathlib.Path(options.model).name,
                  "llama_cpp": f"{cpu_llama.PACKAGE} {cpu_llama.VERSION}"})
    whole["columns"][options.instructions] = result
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return path


def main():
    cpu, best = cpu_facts()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=int, default=128, help="tokens that each of Fermata's streams decodes")
    parser.add_argument("--instructions", choices=sorted(cpu_llama.BUILDS), default=best)
    parser.add_argument("--prefix", type=str.split, default=[], help="runs each program by this command, e.g. taskset")
    parser.add_argument("--serve_only", action="store_true", help="clients over gRPC and the start, without llama.cpp")
    parser.add_argument("--save", action="store_true", help="into docs/benchmarks")
    options = parser.parse_args()
    if options.save and options.serve_only:
        parser.error("--save keeps a whole run: leave out --serve_only")
    result = measure(options)
    print(json.dumps({"cpu": cpu, "instructions": options.instructions, "threads": options.threads,
                      **result["ceilings"], **result["floors"]}))
    for row in [*result["rows"], *result["serve"], result["start"]]:
        print(json.dumps(row))
    if options.save:
        print(json.dumps({"saved": str(save(result, cpu, options).relative_to(ROOT))}))


if __name__ == "__main__":
    main()
