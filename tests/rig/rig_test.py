"""rig_test.py - what the tests of this folder share: a lab for each class, programs of ours, networks to run."""
import os
import shutil
import subprocess
import tempfile
import unittest

import lab as rig
import tiny_onnx

ROOT = os.path.abspath(os.path.join(rig.HERE, "../.."))


def program(name):
    return os.path.abspath(os.path.join(os.environ.get("NAS_BIN_DIR", f"{ROOT}/build/release/bin"), name))


def agent(arch="aarch64"):
    """The static agent for phones; skips when there is none."""
    folder = os.environ.get("NAS_AGENTS_DIR", f"{ROOT}/build/agents")
    path = os.path.abspath(f"{folder}/nas-agent-{arch}")
    if not os.path.exists(path):
        raise unittest.SkipTest(f"no {os.path.basename(path)}: make agents builds it where the cross compiler is there")
    return path


class LabTest(unittest.TestCase):
    """One adb server and the phones named in `profiles` for all tests of a class; no lab, no tests."""

    profiles = ()
    phone_options = {}

    @classmethod
    def setUpClass(cls):
        try:
            cls.lab = rig.Lab()
        except rig.Unavailable as e:
            raise unittest.SkipTest(str(e)) from e
        cls.addClassCleanup(cls.lab.close)
        cls.lab.start_server()
        try:
            cls.phones = [cls.lab.phone(name, **cls.phone_options) for name in cls.profiles]
        except rig.Unavailable as e:
            raise unittest.SkipTest(str(e)) from e

    def adb(self, *arguments, phone=0, **options):
        return self.lab.adb("-s", self.phones[phone].serial, *arguments, **options)

    def shell(self, command, phone=0, **options):
        return self.adb("shell", command, phone=phone, **{"check": False, **options})

    def folder(self):
        path = tempfile.mkdtemp(prefix="nas-rig-test-")
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path


def compile_network(folder, target, cpu=None, **shape):
    """A small network as a program for `target`; skips when its compiler is missing."""
    onnx = f"{folder}/tiny.onnx"
    tiny_onnx.write(onnx, **shape)
    out = f"{folder}/{target}"
    extra = ["--cpu", cpu] if cpu else []
    done = subprocess.run([program("nas-compile"), onnx, "-o", out, "--target", target, "--threads", "1", "--cache",
                           f"{folder}/cache", *extra], capture_output=True, text=True)
    if done.returncode != 0 and "apt-get install" in done.stderr:
        raise unittest.SkipTest(done.stderr.strip().splitlines()[-1])
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return f"{out}/model"
