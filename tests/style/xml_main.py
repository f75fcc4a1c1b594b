"""unittest.main() that also writes the results where Bazel wants them, one test case each."""

import os
import sys
import time
import unittest
import xml.etree.ElementTree as ElementTree


class _Result(unittest.TextTestResult):
    """Notes for each test how long it took and how it ended."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.suite = ElementTree.Element("testsuite", name=os.environ.get("TEST_TARGET", "unittest"))
        self._case, self._start = None, 0.0

    def startTest(self, test):
        super().startTest(test)
        kind, _, name = test.id().rpartition(".")
        self._case = ElementTree.SubElement(self.suite, "testcase", classname=kind, name=name)
        self._start = time.monotonic()

    def stopTest(self, test):
        self._case.set("time", f"{time.monotonic() - self._start:.3f}")
        super().stopTest(test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        ElementTree.SubElement(self._case, "failure", message=str(err[1])[:2000])

    def addError(self, test, err):
        super().addError(test, err)
        if self._case is None:  # a fixture of the class or module, before any test
            self._case = ElementTree.SubElement(self.suite, "testcase", name=test.id())
        ElementTree.SubElement(self._case, "error", message=str(err[1])[:2000])

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        ElementTree.SubElement(self._case, "skipped", message=reason)


def main():
    """Runs the tests of the main module; the exit status tells how it went."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    result = unittest.TextTestRunner(resultclass=_Result, verbosity=2).run(suite)
    if path := os.environ.get("XML_OUTPUT_FILE"):
        result.suite.set("tests", str(result.testsRun))
        result.suite.set("failures", str(len(result.failures)))
        result.suite.set("errors", str(len(result.errors)))
        root = ElementTree.Element("testsuites")
        root.append(result.suite)
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    sys.exit(not result.wasSuccessful())
