"""Runs all tests of this folder and counts them."""

import pathlib
import sys
import unittest


def main():
    pattern = sys.argv[1] if len(sys.argv) > 1 else 'test_*.py'
    suite = unittest.defaultTestLoader.discover(str(pathlib.Path(__file__).parent), pattern=pattern)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    # A class that cannot be set up counts as one failure, and runs no test.
    print(f'{max(result.testsRun - failed, 0)} passed, {failed} failed')
    return 1 if failed or not result.testsRun else 0


if __name__ == '__main__':
    sys.exit(main())
