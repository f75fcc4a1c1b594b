#!/bin/sh
# Runs a Python test under Bazel: `python_test.sh PATH`. Bazel's own py_test wants a `python` on the path, which
# Debian 12 does not have.
PYTHONPATH=. exec python3 "$@"
