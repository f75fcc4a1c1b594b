"""Keeps the limits of the project's style: see CONTRIBUTING.md.

Goal: what can be checked by a machine is never a review comment. Method: read the source tree itself (this file's real
place tells where it is), run each rule over all of it, and print offences as path:line. rules_test.py shows that each
rule finds what it is for.
"""

import shutil
import subprocess
import unittest

from tests.style import build_rules, size_rules, source_rules
from tests.style.allowed import ALLOWED
from tests.style.finding import not_allowed
from tests.style.tree import read_tree, workspace_root
from tests.style.xml_main import main

RULES = (
    size_rules.file_length,
    size_rules.median_file_length,
    size_rules.function_length,
    size_rules.line_length,
    size_rules.header_comments,
    source_rules.leftovers,
    source_rules.machine_paths,
    source_rules.include_guards,
    source_rules.core_is_pure,
    source_rules.no_exit,
    source_rules.no_exceptions,
    build_rules.arrows,
    build_rules.no_globs,
    build_rules.one_header_a_target,
    build_rules.visibility,
    build_rules.every_source_is_built,
)


class StyleTest(unittest.TestCase):
    """One test for each rule is added below."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.root = workspace_root()
        cls.files = read_tree(cls.root)

    def check(self, rule):
        allowed = {key: limit for key, limit in ALLOWED.items() if key[0] == rule.__name__}
        findings = not_allowed(rule(self.files), allowed)
        if findings:
            self.fail("\n".join([rule.__doc__, *map(str, findings)]))

    def test_tree_is_found(self):
        self.assertGreater(sum(file.is_cpp for file in self.files), 20)
        self.assertIn("engine/core/engine.h", [file.path for file in self.files])
        print(size_rules.statistics_text(self.files))

    def test_allowed_names_rules_that_exist(self):
        self.assertLessEqual({rule for rule, _ in ALLOWED}, {rule.__name__ for rule in RULES})

    def test_formatting(self):
        clang_format = shutil.which("clang-format-14") or shutil.which("clang-format")
        if not clang_format:
            print("clang-format is not installed here: formatting was not checked")
            return
        paths = [file.path for file in self.files if file.is_cpp]
        result = subprocess.run([clang_format, "--dry-run", "--Werror", "--ferror-limit=1", *paths], cwd=self.root,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        offences = [line for line in result.stdout.splitlines() if "error:" in line]
        if result.returncode:
            self.fail("\n".join(["run clang-format -i on:", *offences]))


for each in RULES:
    setattr(StyleTest, f"test_{each.__name__}", lambda self, rule=each: self.check(rule))

if __name__ == "__main__":
    main()
