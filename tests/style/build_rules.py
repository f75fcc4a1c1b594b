"""Rules about the folders' dependencies and their BUILD files, which are Python's syntax and are read as such."""

import ast
import re

from tests.style.finding import Finding

_PROJECT_INCLUDE = re.compile(r'^\s*#\s*include\s+"((?:engine|control|kernels|proto|tests|tools)/[^"]+)"', re.MULTILINE)

# Who may include whom, by folder (design's arrows). Longest matching folder first; tests may include everything.
_ARROWS = (
    ("tests/", ("",)),
    ("engine/core/", ("engine/core/",)),
    ("engine/model/", ("engine/core/", "engine/model/", "kernels/")),
    ("engine/runtime/", ("engine/core/", "engine/runtime/")),
    ("engine/serving/", ("engine/", "proto/")),
    ("control/", ("engine/", "control/", "proto/")),
    ("kernels/", ("kernels/",)),
    ("tools/ctl/", ("tools/ctl/", "proto/")),
)


def arrows(files):
    """Dependencies between folders point one way."""
    for file in files:
        allowed = next((to for folder, to in _ARROWS if file.path.startswith(folder)), None)
        if allowed is None or not file.is_cpp:
            continue
        for match in _PROJECT_INCLUDE.finditer(file.text):
            if not match.group(1).startswith(allowed):
                yield Finding("arrows", file.path, file.text.count("\n", 0, match.start(1)) + 1,
                              f"includes {match.group(1)}, against the direction of dependencies")


def _targets(file):
    """Yields (rule, line, {attribute: literal value, or None}) for each target of a BUILD file."""
    for node in ast.walk(ast.parse(file.text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno, {word.arg: _literal(word.value) for word in node.keywords}


def _literal(node):
    """The strings of an expression, select() and + included; a lone constant as it is."""
    if isinstance(node, ast.Constant):
        return node.value
    return [item.value for item in ast.walk(node) if isinstance(item, ast.Constant)]


def _builds(files):
    return [file for file in files if file.name == "BUILD"]


def no_globs(files):
    """Every file is named by the target it belongs to."""
    for file in files:
        if file.is_build:
            for rule, line, _ in _targets(file):
                if rule == "glob":
                    yield Finding("no_globs", file.path, line, "uses glob(): name the files")


def one_header_a_target(files):
    """One class, one header, one target: a library has at most one public header."""
    for file in _builds(files):
        for rule, line, attributes in _targets(file):
            if rule == "cc_library" and len(attributes.get("hdrs") or []) > 1:
                yield Finding("one_header_a_target", file.path, line,
                              f"{attributes.get('name')} has {len(attributes['hdrs'])} headers; one a target")


def visibility(files):
    """Private by default, opened target by target: only the API, third parties and build rules are public."""
    for file in _builds(files):
        if file.path.startswith(("third_party/", "proto/", "tools/bazel/")):
            continue
        for _, line, attributes in _targets(file):
            for name in ("visibility", "default_visibility"):
                if "//visibility:public" in (attributes.get(name) or []):
                    yield Finding("visibility", file.path, line, f"{name} is public: open it to those who need it")


def every_source_is_built(files):
    """Every C++ file is named in the BUILD file of its package: no dead files."""
    packages = {}
    for file in _builds(files):
        folder = file.path[:-len("BUILD")]
        strings = {node.value for node in ast.walk(ast.parse(file.text))
                   if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        packages[folder] = strings
    for file in files:
        if not file.is_cpp:
            continue
        folder = next((f for f in sorted(packages, key=len, reverse=True) if file.path.startswith(f)), None)
        if folder is None or file.path[len(folder):] not in packages[folder]:
            yield Finding("every_source_is_built", file.path, 1, "no BUILD file names it")
