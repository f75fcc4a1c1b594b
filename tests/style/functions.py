"""Finds functions and their lengths in C++, Python and shell. Close enough for a limit; not a parser."""

import ast
import re

_TYPE_OR_NAMESPACE = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")
_SHELL_FUNCTION = re.compile(r"^(\w+)\(\) \{$")


def functions(file):
    """Yields (first line, name, number of lines) for each outermost function of `file`; nested ones count in theirs."""
    if file.is_cpp:
        yield from _cpp_functions(file.code)
    elif file.is_python:
        yield from _python_functions(file.text)
    elif file.is_script or file.path.endswith(".sh"):
        yield from _shell_functions(file.lines)


def _cpp_functions(code):
    depth = 0  # of braces
    opaque = None  # depth at which a function's or an initializer's braces opened; what is inside is not looked at
    start = 0  # where the present declaration began
    head, name = 0, None
    for at, character in enumerate(code):
        if character == "{":
            depth += 1
            if opaque is None:
                declaration = code[start:at]
                name = _function_name(declaration)
                if name or not _TYPE_OR_NAMESPACE.search(declaration):
                    opaque = depth
                    head = start + len(declaration) - len(declaration.lstrip())
            if opaque is None:
                start = at + 1
        elif character == "}":
            if opaque == depth:
                if name:
                    first = code.count("\n", 0, head) + 1
                    yield first, name, code.count("\n", head, at) + 1
                opaque, name = None, None
            depth -= 1
            if opaque is None:
                start = at + 1
        elif character == ";" and opaque is None:
            start = at + 1


def _function_name(declaration):
    """The name of the function whose body follows `declaration`, or None if it is no function."""
    text = re.sub(r"\btemplate\s*<[^{};]*?>\s*(?=[\w:\[])", " ", declaration).strip()
    if text.endswith("=") or re.match(r"(namespace|enum)\b", text):
        return None
    found = re.search(r"([~\w:]+|operator\s*\S+?)\s*\(", text)
    if not found or not re.search(r"\)[\s\w&:>*<,.()\[\]-]*$", text):
        return None
    if re.match(r"(class|struct|union)\b", text) and ")" not in text[found.end():]:
        return None
    return found.group(1)


def _python_functions(text):
    for node in _outermost(ast.parse(text)):
        yield node.lineno, node.name, node.end_lineno - node.lineno + 1


def _outermost(node):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child
        else:
            yield from _outermost(child)


def _shell_functions(lines):
    first, name = None, None
    for number, line in enumerate(lines, start=1):
        if match := _SHELL_FUNCTION.match(line):
            first, name = number, match.group(1)
        elif line == "}" and name:
            yield first, name, number - first + 1
            name = None
