#!/usr/bin/env python3
"""Counts the test cases that one `bazel test` really ran.

usage: count_tests.py EVENTS STATUS

EVENTS is the file of --build_event_json_file, STATUS bazel's exit status. Prints "PASSED FAILED SKIPPED" to standard
output and the names of what failed to standard error. A GoogleTest binary counts each of its cases; a test that
crashed, ran out of time or was not even built counts as one failure, and so does a bazel that failed without a word.
"""

import collections
import json
import sys
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree


class Count:

    def __init__(self):
        self.passed, self.failed, self.skipped = 0, 0, 0

    def fail(self, name):
        self.failed += 1
        print(f"FAILED: {name}", file=sys.stderr)


def count_cases(label, path, passed, count):
    """Adds the cases of one test.xml; `passed` is Bazel's own verdict on the test that wrote it."""
    failed_before = count.failed
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        cases = []
    for case in cases:
        name = ".".join(filter(None, [case.get("classname"), case.get("name")]))
        if case.find("failure") is not None or case.find("error") is not None:
            count.fail(f"{label} {name}")
        elif case.find("skipped") is not None or case.get("result") == "skipped":
            count.skipped += 1
        elif case.get("status") != "notrun":
            count.passed += 1
    if not passed and count.failed == failed_before:
        count.fail(f"{label} (crashed or ran out of time)")
    elif passed and not cases:
        count.passed += 1


def local_path(uri):
    return urllib.request.url2pathname(urllib.parse.urlparse(uri).path)


def read_events(path):
    """Returns the labels of the tests that should have run, and the last result of each run of those that did."""
    wanted, results = set(), collections.defaultdict(dict)  # results: label -> (run, shard) -> the last attempt
    with open(path, encoding="utf-8") as lines:
        for event in map(json.loads, lines):
            identity = event["id"]
            if configured := identity.get("targetConfigured"):
                if event.get("configured", {}).get("targetKind", "").endswith("_test rule"):
                    wanted.add(configured["label"])
            elif result := identity.get("testResult"):
                results[result["label"]][result.get("run"), result.get("shard")] = event["testResult"]
            elif completed := identity.get("targetCompleted"):
                # Built but filtered out of the run, or not meant for this machine or configuration.
                if event.get("completed", {}).get("success") or event.get("aborted", {}).get("reason") == "SKIPPED":
                    wanted.discard(completed["label"])
    return wanted, results


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    count = Count()
    try:
        wanted, results = read_events(sys.argv[1])
    except OSError:
        wanted, results = set(), {}
    for label in sorted(results):
        for result in results[label].values():
            path = next((local_path(file["uri"]) for file in result.get("testActionOutput", [])
                         if file["name"] == "test.xml"), "")
            count_cases(label, path, result["status"] == "PASSED", count)
    for label in sorted(wanted - set(results)):
        count.fail(f"{label} (not built)")
    if sys.argv[2] != "0" and not count.failed:
        count.fail(f"bazel itself, with status {sys.argv[2]}")
    print(count.passed, count.failed, count.skipped)


if __name__ == "__main__":
    main()
