"""What tools/bench/cpu says: rows with medians, ratios and targets. Pure: measurements go in, values come out."""

import statistics

# The targets, by instruction set: how often llama.cpp's tokens per second.
ROWS = {
    "decode_1": ("decode, 1 stream", {"avx512-vnni": 1.6, "avx2": 1.2}),
    "decode_8": ("decode, 8 streams", {"avx512-vnni": 4.0, "avx2": 2.0}),
    "decode_32": ("decode, 32 streams", {"avx512-vnni": 4.0, "avx2": 2.0}),
    "prefill_512": ("prefill, 512 tokens", {"avx512-vnni": 5.0, "avx2": 2.0}),
    "decode_1_deep": ("decode, 1 stream, 4,000 tokens of context", {"avx512-vnni": 1.6, "avx2": 1.2}),
}
SERVE_TARGET = 0.9
START_TARGET_S = 1.0
MEMORY_TARGET = 2.0


def fermata_rates(lines, depth):
    """Tokens per second by the names of ROWS, from what cpu_bench prints."""
    rates = {}
    for line in lines:
        if line["bench"] == "prefill":
            rates["prefill_512"] = line["tokens_per_s"]
        elif line["bench"] == "decode":
            deep = "_deep" if line["context"] == depth else ""
            rates[f"decode_{line['streams']}{deep}"] = line["tokens_per_s"]
    return rates


def ceilings_of(lines, instructions):
    """{"read_gb_per_s", "int8_gop_per_s"}, from what cpu_ceilings prints."""
    read = next(line["gb_per_s"] for line in lines if line["ceiling"] == "read")
    dots = [line["gop_per_s"] for line in lines if line.get("instructions") == instructions]
    return {"read_gb_per_s": read, "int8_gop_per_s": dots[0] if dots else None}


def side_by_side(fermata, llama, floors, instructions):
    """One object for each row. `fermata` and `llama`: a dict of rates for each round; `floors` as in cpu_gguf."""
    rows = []
    for key, (name, targets) in ROWS.items():
        ours = statistics.median(rates[key] for rates in fermata)
        theirs = statistics.median(rates[key] for rates in llama)
        streams = 512 if key == "prefill_512" else int(key.split("_")[1])
        operations = floors["prefill_ops" if key == "prefill_512" else "decode_ops"]
        ratio = ours / theirs
        rows.append({"row": key, "name": name, "fermata_tokens_per_s": round(ours, 1),
                     "llama_cpp_tokens_per_s": round(theirs, 1), "ratio": round(ratio, 2),
                     "target": targets[instructions], "met": ratio >= targets[instructions],
                     "gb_per_s": round(ours / streams * floors["decode_bytes"] / 1e9, 1),
                     "gop_per_s": round(ours * operations / 1e9, 1),
                     "fermata_rounds": [round(rates[key], 1) for rates in fermata],
                     "llama_cpp_rounds": [round(rates[key], 1) for rates in llama]})
    return rows


def serve_rows(loads):
    """`loads`: what serve_load printed, over all rounds, each with the `engine_tokens_per_s` of cpu_bench beside it.

    The ratio is the median of the rounds' ratios, not the ratio of medians: the machine's pace changes between rounds.
    """
    rows = []
    for clients in sorted({load["clients"] for load in loads}):
        rounds = [load for load in loads if load["clients"] == clients]

        def median(field):
            return statistics.median(load[field] for load in rounds)

        ratios = [load["tokens_per_s"] / load["engine_tokens_per_s"] for load in rounds]
        ratio = statistics.median(ratios)
        rows.append({"row": f"serve_{clients}", "name": f"{clients} clients over gRPC",
                     "served_tokens_per_s": round(median("tokens_per_s"), 1),
                     "engine_tokens_per_s": round(median("engine_tokens_per_s"), 1), "ratio": round(ratio, 3),
                     "rounds": [round(value, 3) for value in ratios], "target": SERVE_TARGET,
                     "met": ratio >= SERVE_TARGET,
                     **{field: round(median(field), 2) for field in (
                         "first_token_ms_p50", "first_token_ms_max", "between_tokens_ms_p50",
                         "between_tokens_ms_p99")}})
    return rows


def start_row(starts, file_bytes):
    """`starts`: (seconds to ready, peak bytes) for each round. KV is not touched before the first generation."""
    seconds = statistics.median(start for start, _ in starts)
    peak = max(peak for _, peak in starts)
    return {"row": "start", "name": "start to ready", "start_s": round(seconds, 3), "target_s": START_TARGET_S,
            "peak_mb": round(peak / 1e6, 1), "peak_of_file": round(peak / file_bytes, 2),
            "target_of_file": MEMORY_TARGET, "met": seconds <= START_TARGET_S and peak <= MEMORY_TARGET * file_bytes}
