"""The project's own files, as the style rules read them."""

import functools
import os
import pathlib
import re

CPP_ENDINGS = (".h", ".cc", ".cu", ".cuh")
CODE_ENDINGS = CPP_ENDINGS + (".py", ".bzl", ".proto", ".sh")


class SourceFile:
    """One text file. `path` is relative to the tree's root, with forward slashes."""

    def __init__(self, path, text):
        self.path = path
        self.text = text
        self.lines = text.split("\n")
        if self.lines and not self.lines[-1]:
            self.lines.pop()

    @property
    def name(self):
        return self.path.rsplit("/", 1)[-1]

    @property
    def is_cpp(self):
        return self.path.endswith(CPP_ENDINGS)

    @property
    def is_header(self):
        return self.path.endswith((".h", ".cuh"))

    @property
    def is_script(self):
        return self.text.startswith("#!")

    @property
    def is_python(self):
        return self.path.endswith(".py") or bool(re.match(r"#!.*python", self.text))

    @property
    def is_build(self):
        return self.name in ("BUILD", "WORKSPACE") or self.path.endswith(".bzl")

    @property
    def is_code(self):
        return self.path.endswith(CODE_ENDINGS) or self.is_build or self.is_script

    @functools.cached_property
    def code(self):
        """The C++ text with comments, literals and preprocessor lines blanked; every line keeps its number."""
        return blank_cpp(self.text)


_NOT_CODE = re.compile(
    r"""
      //[^\n]*                                     # a comment to the end of the line
    | /\*.*?\*/                                    # a block comment
    | R"(?P<mark>[^()\s"]*)\(.*?\)(?P=mark)"       # a raw string
    | "(?:\\.|[^"\\\n])*"                          # a string
    | (?<![0-9A-Za-z_])'(?:\\.|[^'\\\n])+'         # a character, but not the mark within 1'000
    | ^[ \t]*\#(?:[^\n]*\\\n)*[^\n]*               # a preprocessor line with its continuations
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE)


def blank_cpp(text):
    """`text` with everything blanked that is not C++ code proper; line breaks stay."""

    def blank(match):
        found = match.group(0)
        filler = '""' if found.startswith(('"', 'R"')) else " "
        return filler + "\n" * found.count("\n")

    return _NOT_CODE.sub(blank, text)


def workspace_root():
    """The source tree that this file stands in: Bazel's run folders are links to it."""
    for folder in pathlib.Path(__file__).resolve().parents:
        if (folder / "WORKSPACE").exists() and (folder / "LICENSE").exists():
            return folder
    raise RuntimeError("no folder above this file has a WORKSPACE and a LICENSE")


def read_tree(root):
    """All text files below `root`, sorted by path; build outputs, caches and reference data are left out."""
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name for name in folders
            if name == ".ci" or not (name.startswith((".", "bazel-")) or name in ("__pycache__", "goldens")))
        for name in sorted(names):
            path = pathlib.Path(folder, name)
            if path.is_symlink() or name == ".git":  # a file in a worktree
                continue
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            files.append(SourceFile(path.relative_to(root).as_posix(), text))
    return files
