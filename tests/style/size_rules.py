"""Rules about how long files, functions and lines may be, and how much of a header is comment."""

import statistics

from tests.style.finding import Finding
from tests.style.functions import functions

SOFT_FILE_LINES = 400
HARD_FILE_LINES = 600
KERNEL_FILE_LINES = 800
MEDIAN_FILE_LINES = 150
FUNCTION_LINES = 70
LINE_COLUMNS = 120
HEADER_COMMENT_SHARE = 0.30  # over all headers together; style aims at 0.35 to 0.5


def file_length(files):
    """Soft cap 400 lines (needs an entry in allowed.py), hard cap 600; kernels 800. Protos and BUILDs: no cap."""
    for file in files:
        if not file.is_code or file.path.endswith((".proto", "BUILD")):
            continue
        soft, hard = SOFT_FILE_LINES, HARD_FILE_LINES
        if file.path.startswith("kernels/"):
            soft = hard = KERNEL_FILE_LINES
        if len(file.lines) > soft:
            yield Finding("file_length", file.path, 1, f"{len(file.lines)} lines; at most {soft}",
                          amount=len(file.lines), ceiling=hard)


def median_file_length(files):
    """Half of all C++ files have at most 150 lines."""
    lengths = [len(file.lines) for file in files if file.is_cpp]
    if lengths and statistics.median(lengths) > MEDIAN_FILE_LINES:
        yield Finding("median_file_length", ".", 0,
                      f"the median C++ file has {statistics.median(lengths)} lines; at most {MEDIAN_FILE_LINES}")


def function_length(files):
    """Functions have at most 70 lines."""
    for file in files:
        for first, name, length in functions(file):
            if length > FUNCTION_LINES:
                yield Finding("function_length", file.path, first,
                              f"{name} has {length} lines; at most {FUNCTION_LINES}", amount=length)


def line_length(files):
    """Lines of code have at most 120 columns."""
    for file in files:
        for number, line in enumerate(file.lines, start=1):
            if file.is_code and len(line) > LINE_COLUMNS:
                yield Finding("line_length", file.path, number, f"{len(line)} columns; at most {LINE_COLUMNS}")


def comment_share(file):
    """The share of a C++ file's lines that is, or ends with, a comment; blank lines are not counted."""
    lines = [line for line in file.lines if line.strip()]
    return sum("//" in line for line in lines) / len(lines) if lines else 0.0


def header_comments(files):
    """Headers and tests open with a comment, and headers are contracts: a good part of them is comment."""
    for file in files:
        is_test = file.is_cpp and file.path.rsplit(".", 1)[0].endswith("_test")
        if (file.is_header or is_test) and not file.text.startswith("//"):
            yield Finding("header_comments", file.path, 1, "does not open with a comment that says what it is for")
    headers = [file for file in files if file.is_header]
    lines = sum(sum(bool(line.strip()) for line in file.lines) for file in headers)
    comments = sum("//" in line for file in headers for line in file.lines)
    if lines and comments / lines < HEADER_COMMENT_SHARE:
        yield Finding("header_comments", ".", 0, f"{comments / lines:.0%} of the headers' lines have a comment; "
                      f"at least {HEADER_COMMENT_SHARE:.0%}")


def statistics_text(files):
    """A few lines for people: how long files are, and how much of them is comment."""
    rows = []
    for title, chosen in (("headers", [f for f in files if f.is_header]),
                          ("sources", [f for f in files if f.is_cpp and not f.is_header])):
        if chosen:
            lengths = sorted(len(file.lines) for file in chosen)
            rows.append(f"{len(chosen)} {title}: median {statistics.median(lengths):.0f} lines, longest {lengths[-1]}, "
                        f"median comment share {statistics.median(map(comment_share, chosen)):.0%}")
    return "\n".join(rows)
