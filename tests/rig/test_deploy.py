"""nas-agent deploy and status on phones that come and go; test_phone.py has the first steps and the refusals."""
import os
import subprocess

import lab as rig
from rig_test import LabTest, agent, program

UNAVAILABLE = 4  # exit code: device or agent


class DeployTest(LabTest):
    def agent(self, *words, phone=None, timeout=60):
        """nas-agent with the words; `{}` is the phone. Its result."""
        serial = (phone or self.phones[0]).serial
        folder = os.path.dirname(agent())
        words = [w.replace("{}", "adb:" + serial) for w in words]
        if words[0] == "deploy":
            words += ["--agents", folder, "--key-file", f"{self.lab.folder}/key-{serial}"]
        return subprocess.run([program("nas-agent"), *words], env=self.lab.environment, cwd=self.lab.folder,
                              capture_output=True, text=True, timeout=timeout)

    def succeeds(self, *words, **options):
        done = self.agent(*words, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def refuses(self, text, *words, **options):
        """Exit code 4, the reason and what to do about it on stderr, nothing else."""
        done = self.agent(*words, **options)
        self.assertEqual((done.returncode, done.stdout), (UNAVAILABLE, ""), done.stderr)
        self.assertIn(text, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)


class Deploy(DeployTest):
    profiles = ("big_little", "little")

    def tearDown(self):
        self.phones[0].order(replug=True, fault={"hang": None, "push_fail": None})
        self.lab.wait_state(self.phones[0], "device")
        self.agent("stop", "{}", "--force")

    def test_an_offline_phone_is_told_to_be_woken(self):
        self.phones[0].order(unplug=60)
        self.lab.wait_state(self.phones[0], "offline")
        self.refuses("the phone is offline", "status", "{}")

    def test_a_killed_agent_is_started_again(self):
        self.succeeds("deploy", "{}")
        self.assertEqual(self.phones[0].order(kill="serve")["killed"], 1)
        self.assertIn("does not run", self.succeeds("status", "{}"))
        self.assertIn("started", self.succeeds("deploy", "{}"))

    def test_after_a_reboot_the_agent_is_started_again(self):
        self.succeeds("deploy", "{}")
        self.phones[0].order(reboot=0.3)
        self.lab.wait_state(self.phones[0], "device")
        self.assertIn("started", self.succeeds("deploy", "{}"))

    def test_an_agent_with_another_key_is_told_apart(self):
        self.succeeds("deploy", "{}")
        key = "/data/local/tmp/nas-search/agent.key"
        self.shell(f"chmod 600 {key}; echo {'0' * 64} > {key}")
        self.assertIn("another key", self.succeeds("status", "{}"))
        self.assertIn("started", self.succeeds("deploy", "{}"))


class Refused(DeployTest):
    def test_a_phone_that_executes_nothing_is_told_to_be_useless(self):
        phone = self.lab.phone("little", data_noexec=True)
        self.refuses("noexec", "deploy", "{}", phone=phone)

    def test_a_phone_without_shell_v2_works_all_the_same(self):
        phone = self.lab.phone("armv7")
        self.assertIn("started", self.succeeds("deploy", "{}", phone=phone))
        self.assertIn("stopped", self.succeeds("stop", "{}", phone=phone))
