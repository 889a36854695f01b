#!/usr/bin/env python3
"""run.py - runs the tests of this folder: run.py [-k PATTERN]... Prints every skip with its reason and what was slow.

A test that needs something this machine lacks (adb, qemu-user, user namespaces, a cross compiler) is skipped."""
import os
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SLOW_S = 1.0


class Result(unittest.TextTestResult):
    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):
        took = time.monotonic() - self.began
        if took > SLOW_S:
            print(f"    {took:5.1f} s  {test.id()}", file=sys.stderr)
        super().stopTest(test)


def main():
    sys.path.insert(0, HERE)
    loader = unittest.TestLoader()
    loader.testNamePatterns = [f"*{x}*" for x in sys.argv[1:] if x != "-k"] or None
    suite = loader.discover(HERE, "test_*.py", HERE)
    result = unittest.TextTestRunner(resultclass=Result, verbosity=1, buffer=False).run(suite)
    for reason in sorted({reason for _, reason in result.skipped}):
        print(f"skipped: {reason}", file=sys.stderr)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
