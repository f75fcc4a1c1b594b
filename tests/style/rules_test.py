"""Shows that each style rule finds what it is for, and leaves alone what is fine.

Method: small trees made in memory, one planted offence each.
"""

import unittest

from tests.style import build_rules, size_rules, source_rules
from tests.style.finding import Finding, not_allowed
from tests.style.functions import functions
from tests.style.tree import SourceFile, blank_cpp
from tests.style.xml_main import main


def found(rule, path, text):
    return [(finding.path, finding.line) for finding in rule([SourceFile(path, text)])]


class CppReadingTest(unittest.TestCase):

    def test_comments_and_literals_are_blanked_and_lines_stay(self):
        code = blank_cpp('int a; // exit(1)\nauto s = "exit(1) // \\" x"; /* b\nc */ int d = 1\'000;\n'
                         '#define E exit(1)\nint e;')
        self.assertNotIn("exit", code)
        self.assertEqual(code.count("\n"), 4)
        self.assertIn("int d = 1'000;", code)
        self.assertIn("int e;", code)

    def test_finds_functions_of_every_kind(self):
        text = """namespace a {
struct S {
  S(int x) : x_(x) { x_ = 1; }
  int Get() const {
    if (x_) { return 1; }
    return 0;
  }
  int x_;
};
template <typename T>
std::vector<T> Make(T a,
                    T b) {
  return {a, b};
}
const int kTable[] = {1, 2};
enum class E { kA, kB };
S::~S() {}
bool operator<(const S& a, const S& b) { return true; }
}  // namespace a
"""
        self.assertEqual([(first, name, length) for first, name, length in functions(SourceFile("a.cc", text))],
                         [(3, "S", 1), (4, "Get", 4), (10, "Make", 5), (17, "S::~S", 1), (18, "operator<", 1)])

    def test_finds_functions_in_shell_and_python(self):
        self.assertEqual(list(functions(SourceFile("a.sh", "#!/bin/bash\nf() {\n  x\n}\n"))), [(2, "f", 3)])
        self.assertEqual(list(functions(SourceFile("a.py", "class A:\n  def f(self):\n    pass\n"))), [(2, "f", 2)])


class RulesTest(unittest.TestCase):

    def test_file_length(self):
        self.assertTrue(found(size_rules.file_length, "engine/a.cc", "x;\n" * 401))
        self.assertFalse(found(size_rules.file_length, "engine/a.cc", "x;\n" * 400))
        self.assertFalse(found(size_rules.file_length, "proto/a.proto", "x;\n" * 900))
        self.assertFalse(found(size_rules.file_length, "kernels/a.cc", "x;\n" * 800))
        self.assertTrue(found(size_rules.file_length, "kernels/a.cc", "x;\n" * 801))

    def test_median_file_length(self):
        self.assertTrue(found(size_rules.median_file_length, "a.cc", "x;\n" * 151))
        self.assertFalse(found(size_rules.median_file_length, "a.cc", "x;\n" * 150))

    def test_function_length(self):
        self.assertEqual(found(size_rules.function_length, "a.cc", "\nvoid F() {\n" + "x();\n" * 69 + "}\n"),
                         [("a.cc", 2)])
        self.assertFalse(found(size_rules.function_length, "a.cc", "void F() {\n" + "x();\n" * 68 + "}\n"))

    def test_line_length(self):
        self.assertEqual(found(size_rules.line_length, "a.cc", "\n" + "x" * 121), [("a.cc", 2)])
        self.assertFalse(found(size_rules.line_length, "a.cc", "x" * 120))
        self.assertFalse(found(size_rules.line_length, "README.md", "x" * 121))

    def test_header_comments(self):
        self.assertTrue(found(size_rules.header_comments, "a_test.cc", "int a;\n"))
        self.assertFalse(found(size_rules.header_comments, "a.cc", "int a;\n"))
        self.assertTrue(found(size_rules.header_comments, "a.h", "// What it is.\n" + "int a;\n" * 9))
        self.assertFalse(found(size_rules.header_comments, "a.h", "// What it is.\nint a;\n"))

    def test_leftovers(self):
        self.assertEqual(found(source_rules.leftovers, "a.cc", "int a;\n// TO" + "DO: more\n"), [("a.cc", 2)])
        self.assertTrue(found(source_rules.leftovers, "a_test.cc", "TEST(A, DIS" + "ABLED_B) {}\n"))
        self.assertFalse(found(source_rules.leftovers, "a.cc", "MethodsOfTodo();\n"))

    def test_machine_paths(self):
        for offence in ('"/wo' + 'rk/a"', "/ro" + "ot/x", "/home/" + "jane/x"):
            self.assertTrue(found(source_rules.machine_paths, "a.md", offence), offence)
        for fine in ("a/work/b", "the work/rest", "$HOME/root/x", "https://a/root"):
            self.assertFalse(found(source_rules.machine_paths, "a.md", fine), fine)

    def test_include_guards(self):
        good = "#ifndef FERMATA_A_B_H_\n#define FERMATA_A_B_H_\n#endif  // FERMATA_A_B_H_\n"
        self.assertFalse(found(source_rules.include_guards, "a/b.h", good))
        self.assertTrue(found(source_rules.include_guards, "a/c.h", good))
        self.assertTrue(found(source_rules.include_guards, "a/b.h", "#pragma once\n"))

    def test_core_is_pure(self):
        offences = ('#include "grpcpp/grpcpp.h"', "#include <mutex>", "#include <unistd.h>", '#include "kernels/a.h"',
                    '#include "absl/time/clock.h"', '#include "absl/synchronization/mutex.h"', "std::mutex m;",
                    "auto t = absl::Now();", "int r = rand();", "std::atomic<int> a;")
        for offence in offences:
            self.assertTrue(found(source_rules.core_is_pure, "engine/core/a.cc", offence), offence)
            self.assertFalse(found(source_rules.core_is_pure, "engine/runtime/a.cc", offence), offence)
        for fine in ("#include <vector>", '#include "absl/time/time.h"', '#include "engine/core/ids.h"',
                     "absl::Time time = now;", "// std::mutex is not needed"):
            self.assertFalse(found(source_rules.core_is_pure, "engine/core/a.cc", fine), fine)

    def test_no_exit(self):
        for offence in ("exit(1);", "std::exit(1);", "  ::_exit(2);", "std::abort();"):
            self.assertTrue(found(source_rules.no_exit, "engine/a.cc", offence), offence)
            self.assertFalse(found(source_rules.no_exit, "tools/a.cc", offence), offence)
        for fine in ("worker.exit(1);", "on_exit(1);", "Abort();", "// exit(1)"):
            self.assertFalse(found(source_rules.no_exit, "engine/a.cc", fine), fine)

    def test_no_exceptions(self):
        self.assertTrue(found(source_rules.no_exceptions, "a.cc", "throw 1;"))
        self.assertTrue(found(source_rules.no_exceptions, "a.cc", "try { f(); } catch (...) {}"))
        self.assertFalse(found(source_rules.no_exceptions, "a.cc", "Retry(); TryPush(); // throw"))

    def test_arrows(self):
        self.assertTrue(found(build_rules.arrows, "kernels/a.cc", '#include "engine/core/ids.h"'))
        self.assertTrue(found(build_rules.arrows, "engine/runtime/a.cc", '#include "engine/serving/server.h"'))
        self.assertTrue(found(build_rules.arrows, "tools/ctl/a.cc", '#include "engine/core/ids.h"'))
        self.assertFalse(found(build_rules.arrows, "control/a.cc", '#include "engine/serving/server.h"'))
        self.assertFalse(found(build_rules.arrows, "tests/core/a.cc", '#include "engine/core/ids.h"'))

    def test_build_files(self):
        self.assertTrue(found(build_rules.no_globs, "a/BUILD", 'cc_library(name = "a", srcs = glob(["*.cc"]))'))
        library = 'cc_library(name = "a", hdrs = %s)'
        self.assertTrue(found(build_rules.one_header_a_target, "a/BUILD", library % '["a.h", "b.h"]'))
        self.assertFalse(found(build_rules.one_header_a_target, "a/BUILD", library % '["a.h"]'))
        public = 'cc_library(name = "a", visibility = ["//visibility:public"])'
        self.assertTrue(found(build_rules.visibility, "a/BUILD", public))
        self.assertFalse(found(build_rules.visibility, "third_party/BUILD", public))

    def test_every_source_is_built(self):
        build = SourceFile("a/BUILD", 'cc_library(name = "a", srcs = ["a.cc", "sub/c.cc"])')
        self.assertFalse(list(build_rules.every_source_is_built([build, SourceFile("a/a.cc", ""),
                                                                SourceFile("a/sub/c.cc", "")])))
        self.assertTrue(list(build_rules.every_source_is_built([build, SourceFile("a/b.cc", "")])))
        self.assertTrue(list(build_rules.every_source_is_built([build, SourceFile("b/a.cc", "")])))


class AllowedTest(unittest.TestCase):

    def test_tolerates_up_to_the_amount_and_never_above_the_ceiling(self):
        def rest(amount, allowed):
            return not_allowed([Finding("r", "a.cc", 1, "long", amount=amount, ceiling=600)], {("r", "a.cc"): allowed})

        self.assertEqual(rest(450, 450), [])
        self.assertTrue(rest(451, 450))
        self.assertTrue(rest(601, 700))

    def test_an_entry_that_is_not_needed_is_reported(self):
        self.assertTrue(not_allowed([], {("r", "a.cc"): 450}))


if __name__ == "__main__":
    main()
