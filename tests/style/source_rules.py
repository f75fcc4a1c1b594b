"""Rules about what must not, or must, stand in the text of a file."""

import re

from tests.style.finding import Finding

# Spelled in two parts where this file itself would offend.
_LEFTOVERS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "DIS" + "ABLED_\\w*"]) + r")\b")
_MACHINE_PATH = re.compile(r"(?<![\w.$}~/-])/(work|root|home/\w+)(/|\b)")
_EXIT = re.compile(r"(?<![\w.>])(?:std::|::)?(_?exit|_Exit|quick_exit|abort)\s*\(")
_EXCEPTION = re.compile(r"(?<!\w)(throw\b|try\s*\{|catch\s*\()")
_CLOCK_OR_THREAD = re.compile(
    r"\b(std::(mutex|shared_mutex|thread|jthread|atomic\w*|condition_variable|chrono|async|future|random_device)"
    r"|absl::(Mutex|Now|SleepFor|GetCurrentTimeNanos|BitGen|InsecureBitGen)|rand|time)\b(?=\s*[<({:& ]*)")
_INCLUDE = re.compile(r'^\s*#\s*include\s+(<[^>]+>|"[^"]+")', re.MULTILINE)

# engine/core may include these, its own headers, and the standard headers that are not in _BANNED_STANDARD.
_CORE_ABSL = ("absl/algorithm/", "absl/base/", "absl/container/", "absl/functional/", "absl/hash/", "absl/memory/",
              "absl/meta/", "absl/numeric/", "absl/status/", "absl/strings/", "absl/time/time.h", "absl/types/")
_BANNED_STANDARD = {"atomic", "chrono", "condition_variable", "ctime", "future", "mutex", "random", "semaphore",
                    "shared_mutex", "stop_token", "thread"}

# May end the process: main, command-line tools, and the one place that reports a broken invariant.
_MAY_EXIT = ("main.cc", "tools/", "engine/core/check.h", "tests/")


def leftovers(files):
    """No notes about work to be done, and no test that is switched off."""
    for file in files:
        for number, line in enumerate(file.lines, start=1):
            if found := _LEFTOVERS.search(line):
                yield Finding("leftovers", file.path, number, f"{found.group(0)}: do it now, or open an issue")


def machine_paths(files):
    """Nothing names a folder of the machine it was written on."""
    for file in files:
        for number, line in enumerate(file.lines, start=1):
            if found := _MACHINE_PATH.search(line):
                yield Finding("machine_paths", file.path, number,
                              f"names {found.group(0)}, which other machines do not have")


def include_guards(files):
    """Headers have the guard FERMATA_PATH_FILE_H_."""
    for file in files:
        if not file.is_header:
            continue
        guard = "FERMATA_" + re.sub(r"[^A-Z0-9]", "_", file.path.upper()) + "_"
        wanted = [f"#ifndef {guard}", f"#define {guard}", f"#endif  // {guard}"]
        if any(line not in file.lines for line in wanted):
            yield Finding("include_guards", file.path, 1, f"lacks the include guard {guard}")


def core_is_pure(files):
    """engine/core depends on Abseil alone: no clock, threads, locks, randomness, gRPC, protobuf or CUDA."""
    for file in files:
        if not (file.path.startswith("engine/core/") and file.is_cpp):
            continue
        for match in _INCLUDE.finditer(file.text):
            if not _core_may_include(match.group(1)):
                yield Finding("core_is_pure", file.path, _line_of(file.text, match), f"includes {match.group(1)}")
        for match in _CLOCK_OR_THREAD.finditer(file.code):
            if match.group(1) not in ("rand", "time") or file.code[match.end():].lstrip().startswith("("):
                yield Finding("core_is_pure", file.path, _line_of(file.code, match), f"uses {match.group(1)}")


def _core_may_include(name):
    path = name[1:-1]
    if name.startswith("<"):
        return "/" not in path and not path.endswith(".h") and path not in _BANNED_STANDARD
    return path.startswith("engine/core/") or path.startswith(_CORE_ABSL)


def no_exit(files):
    """Only main.cc and tools end the process; everything else returns a status."""
    for file in files:
        if not file.is_cpp or file.path.startswith(_MAY_EXIT):
            continue
        for match in _EXIT.finditer(file.code):
            yield Finding("no_exit", file.path, _line_of(file.code, match), f"calls {match.group(1)}()")


def no_exceptions(files):
    """Errors are absl::Status; nothing throws or catches."""
    for file in files:
        if not file.is_cpp:
            continue
        for match in _EXCEPTION.finditer(file.code):
            yield Finding("no_exceptions", file.path, _line_of(file.code, match), f"uses {match.group(1).split()[0]}")


def _line_of(text, match):
    return text.count("\n", 0, match.start(1)) + 1
