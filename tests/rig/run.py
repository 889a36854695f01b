#!/usr/bin/env python3
"""run.py - runs the tests of this folder: run.py [PATTERN]... Prints every skip with its reason and what was slow.

A test that needs something this machine lacks (adb, qemu-user, user namespaces, a cross compiler) is skipped. Without
patterns two processes share the work, each with an adb server and phones of its own: studies, and everything else."""
import os
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SLOW_S = 5.0
LONGEST = "test_study"


class Result(unittest.TextTestResult):
    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):
        took = time.monotonic() - self.began
        if took > SLOW_S:
            print(f"    {took:5.1f} s  {test.id()}", file=sys.stderr)
        super().stopTest(test)


def run(names, patterns=None):
    """Tests of the modules `names`; true when none failed."""
    sys.path.insert(0, HERE)
    loader = unittest.TestLoader()
    loader.testNamePatterns = patterns
    suite = loader.loadTestsFromNames(names)
    result = unittest.TextTestRunner(resultclass=Result, verbosity=1).run(suite)
    for reason in sorted({reason for _, reason in result.skipped}):
        print(f"skipped: {reason}", file=sys.stderr)
    return result.wasSuccessful()


def share(groups):
    """Each group in a process of its own, at the same time; what they say comes one after another."""
    running = [subprocess.Popen([sys.executable, __file__, "--modules", *names], stderr=subprocess.PIPE, text=True)
               for names in groups]
    failed = 0
    for process in running:
        said = process.communicate()[1]
        failed += process.returncode != 0
        print(said, end="", file=sys.stderr)
    return failed == 0


def main():
    words = sys.argv[1:]
    modules = sorted(n[:-3] for n in os.listdir(HERE) if n.startswith("test_") and n.endswith(".py"))
    if words[:1] == ["--modules"]:
        ok = run(words[1:])
    elif words:
        ok = run(modules, [f"*{x}*" for x in words])
    else:
        ok = share([[LONGEST], [m for m in modules if m != LONGEST]])
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
