"""Builds llama.cpp's benchmarks from the sources in the package index's sdist of llama-cpp-python, and runs them."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile

PACKAGE = "llama_cpp_python"
VERSION = "0.3.36"
TARGETS = ("llama-bench", "llama-batched-bench")
BUILDS = {
    "avx512-vnni": ("build", ["-DGGML_NATIVE=ON"]),
    "avx2": ("build-avx2", ["-DGGML_NATIVE=OFF"] + [f"-DGGML_{name}=ON" for name in
                                                    ("SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2")]),
}


def cache_folder():
    caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return caches / "llama-cpp-bench" / VERSION


def _sources(folder):
    """The folder of llama.cpp's sources, fetched once."""
    sources = folder / f"{PACKAGE}-{VERSION}"
    if not sources.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", PACKAGE,
                        "-d", folder, f"{PACKAGE}=={VERSION}"], check=True, stdout=sys.stderr)
        with tarfile.open(folder / f"{PACKAGE}-{VERSION}.tar.gz") as archive:
            archive.extractall(folder)
    return sources / "vendor/llama.cpp"


def build(instructions):
    """The folder with the programs for these instructions; builds them once, which takes minutes."""
    name, options = BUILDS[instructions]
    folder = cache_folder()
    programs = folder / name / "bin"
    if all((programs / target).exists() for target in TARGETS):
        return programs
    sources = _sources(folder)
    print(f"Building llama.cpp for {instructions} in {folder / name}", file=sys.stderr)
    with (folder / f"{name}.log").open("w") as log:
        for command in (["cmake", "-S", sources, "-B", folder / name, "-DCMAKE_BUILD_TYPE=Release",
                         "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DBUILD_SHARED_LIBS=OFF"] + options,
                        ["cmake", "--build", folder / name, f"-j{os.cpu_count()}", "--target", *TARGETS]):
            subprocess.run(["nice", "-n", "15", *command], check=True, stdout=log, stderr=log)
    return programs


def _run(prefix, command):
    done = subprocess.run([*prefix, *map(str, command)], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def parse(lines):
    """Tokens per second by the names of cpu_report.ROWS, from the objects that both programs print."""
    rates = {}
    for line in lines:
        if "n_prompt" in line and line["n_prompt"] > 0:
            rates["prefill_512"] = line["avg_ts"]
        elif "n_gen" in line:
            rates["decode_1" if line["n_depth"] < 1000 else "decode_1_deep"] = line["avg_ts"]
        else:
            rates[f"decode_{line['pl']}"] = line["speed_tg"]
    return rates


def measure(programs, model, threads, depth, prefix=()):
    """One round. `prefix`: the words of a command that runs the programs."""
    bench = [programs / "llama-bench", "-m", model, "-t", threads, "-r", 1, "-o", "jsonl"]
    lines = _run(prefix, [*bench, "-p", 512, "-n", 0])
    lines += _run(prefix, [*bench, "-p", 0, "-n", 64, "-d", f"128,{depth}"])
    lines += _run(prefix, [programs / "llama-batched-bench", "-m", model, "-t", threads, "-c", 8192, "-b", 2048,
                           "-ub", 512, "-npp", 128, "-ntg", 64, "-npl", "8,32", "--output-format", "jsonl"])
    return parse(lines)
