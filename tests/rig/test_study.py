"""Whole studies on fake phones, through the real adb: to the front, and twice the same on the virtual clock."""
import os
import shutil
import subprocess
import unittest

import sandbox
from rig_test import LabTest, agent, program
from study import Study


def deploy(test, phone):
    """The [[device]] lines of a phone with our agent on it, deployed as people do."""
    key = f"{test.lab.folder}/key-{phone.serial}"
    done = subprocess.run([program("nas-agent"), "deploy", "adb:" + phone.serial, "--agents", os.path.dirname(agent()),
                           "--key-file", key], env=test.lab.environment, capture_output=True, text=True)
    test.assertEqual(done.returncode, 0, done.stderr)
    connect = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("connect"))
    return f'connect = "{connect}"\nkey_file = "{key}"\nthreads = 1\n'


class Deterministic(LabTest):
    profiles = ("virtual",)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if shutil.which("aarch64-linux-gnu-gcc") is None:
            raise unittest.SkipTest("aarch64-linux-gnu-gcc is not installed (apt-get install gcc-aarch64-linux-gnu)")
        # candidates are scored here by the very programs that are timed there
        sandbox.register_machine("aarch64", cls.lab.folder + "/binfmt", shutil.which("qemu-aarch64"), "F")

    def test_the_same_study_twice_is_the_same_to_the_last_bit_and_says_simulated(self):
        folder, device = self.folder(), deploy(self, self.phones[0])
        more = f'target = "aarch64-dotprod"\n[[device]]\nname = "virtual"\n{device}'
        studies = [Study(self.lab, folder, more, name=name, trials=4, finals=1) for name in ("first", "second")]
        tables = []
        for study in studies:
            done = study.run()
            self.assertEqual(done.returncode, 0, done.stderr)
            tables.append([line for line in done.stdout.splitlines() if not line.startswith("best under")])
            self.assertIn("SIMULATED", done.stdout)
        trials, times, front = studies[0].numbers()
        self.assertEqual(studies[1].numbers(), (trials, times, front))
        self.assertEqual(tables[0], tables[1])
        self.assertGreaterEqual(len(trials), 4)
        self.assertGreaterEqual(len(front), 1)
        self.assertEqual({row[2] for row in times}, {1}, "a measurement that does not say simulated")
        self.assertGreater(len({row[6] for row in times}), 2, "networks differ, their latencies do not")
        self.assertEqual(studies[0].rows("SELECT DISTINCT simulated FROM devices"), [(1,)])
        print([ (r[0],r[1],r[6]) for r in times])
