"""Whole studies on fake phones, through the real adb: to the front, and twice the same on the virtual clock."""
import os
import subprocess

import rig_test
from rig_test import LabTest, program
from study import Study


def start_agent(test, folder, phone=0):
    """An agent on the phone behind a forward; (port, key file)."""
    key = f"{folder}/key{phone}"
    subprocess.run([program("nas-agent"), "keygen", key], check=True)
    at = "/data/local/tmp/nas"
    test.adb("shell", f"mkdir -p {at}", phone=phone)
    test.adb("push", rig_test.agent(), f"{at}/nas-agent", phone=phone)
    test.adb("push", key, f"{at}/key", phone=phone)
    done = test.shell(f"chmod 600 {at}/key; {at}/nas-agent serve --detach --listen @nas --key-file {at}/key --cache-dir "
                      f"{at}/cache --log-file {at}/log --state-file {at}/state", phone=phone)
    test.assertEqual(done.returncode, 0, done.stdout + done.stderr)
    return int(test.adb("forward", "tcp:0", "localabstract:nas", phone=phone).stdout), key


class VirtualStudy(LabTest):
    profiles = ("virtual",)

    def test_over_http(self):
        folder = self.folder()
        port, key = start_agent(self, folder)
        s = Study(self.lab, folder, f'target = "aarch64-linux"\n[[device]]\nname = "vc"\nconnect = "http://127.0.0.1:{port}"\n'
                  f'key_file = "{key}"\nthreads = 1\n')
        done = s.run()
        print(done.stdout, done.stderr)
        self.assertEqual(done.returncode, 0)
