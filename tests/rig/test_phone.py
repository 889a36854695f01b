"""Our own controller against fake phones: the C tests of latency/ that need phones, and nas-agent for people."""
import os
import subprocess

import lab as rig
import tiny_onnx
from rig_test import LabTest, ROOT, agent, compile_network, program


class Controller(LabTest):
    profiles = ("big_little", "little")

    def setUp(self):
        self.agents = os.path.dirname(agent())

    def environment(self, **more):
        return {**self.lab.environment, "NAS_AGENTS_DIR": self.agents,
                "RIG_SERIALS": " ".join(x.serial for x in self.phones),
                "RIG_CONTROLS": " ".join(x.folder + "/control" for x in self.phones), **more}

    def test_devices_over_adb_from_c(self):
        tests = os.path.join(os.environ.get("NAS_TESTS_DIR", f"{ROOT}/build/release/tests"), "latency")
        if not os.path.exists(tests):
            self.skipTest(f"no {tests}: make check-latency builds it")
        artifact = compile_network(self.folder(), "aarch64-linux")
        done = subprocess.run([tests, "--filter", "latency_phone/*", "--jobs", "1"], capture_output=True, text=True,
                              env=self.environment(RIG_ARTIFACT=artifact), timeout=600)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotIn("Tested: 0", done.stdout + done.stderr)

    def test_kernels_are_tuned_on_a_phone(self):
        folder = self.folder()
        onnx = f"{folder}/tiny.onnx"
        tiny_onnx.write(onnx, channels=(3, 8))
        line = [program("nas-compile"), onnx, "--device", "adb:" + self.phones[0].serial, "--explain", "--form", "layers",
                "--threads", "2", "--cache", f"{folder}/cache"]
        first = subprocess.run([*line, "--tune", "2s"], env=self.environment(), capture_output=True, text=True, timeout=300)
        if first.returncode != 0 and "apt-get install" in first.stderr:
            self.skipTest(first.stderr.strip().splitlines()[-1])
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertIn("; measured ", first.stdout)
        self.assertIn("2 threads: ", first.stderr)
        again = subprocess.run([*line, "--tune", "2s"], env=self.environment(), capture_output=True, text=True, timeout=300)
        self.assertEqual(again.stdout, first.stdout)
        self.assertNotIn("tuned ", again.stderr)

    def nas_agent(self, *arguments, code=0):
        done = subprocess.run([program("nas-agent"), *arguments], env=self.environment(), cwd=self.lab.folder,
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_people_deploy_look_read_and_stop(self):
        phone = "adb:" + self.phones[0].serial
        first = self.nas_agent("deploy", phone, "--agents", self.agents, "--key-file", "the.key")
        self.addCleanup(self.nas_agent, "stop", phone)
        self.assertIn("started", first)
        again = self.nas_agent("deploy", phone, "--agents", self.agents, "--key-file", "the.key")
        self.assertIn("runs already", again)
        connect = lambda text: next(x for x in text.splitlines() if x.startswith("connect"))
        self.assertEqual(connect(first), connect(again))
        self.assertEqual(os.stat(self.lab.folder + "/the.key").st_mode & 0o777, 0o600)
        self.assertIn("runs, version", self.nas_agent("status", phone))
        self.assertIn("used by  nobody", self.nas_agent("status", phone))
        every = self.nas_agent("status", "adb:*")
        self.assertIn("does not run", every)
        self.assertIn("listening", self.nas_agent("logs", phone))
        self.assertIn("stopped", self.nas_agent("stop", phone))
        self.assertIn("no agent was running", self.nas_agent("stop", phone))
        self.assertNotIn(self.phones[0].serial, self.lab.adb("forward", "--list").stdout)
        self.assertNotIn("agent.key", self.shell("ls /data/local/tmp/nas-search").stdout)

    def test_the_agents_key_is_for_the_shell_user_alone(self):
        phone = "adb:" + self.phones[0].serial
        self.nas_agent("deploy", phone, "--agents", self.agents)
        self.addCleanup(self.nas_agent, "stop", phone)
        self.assertTrue(self.shell("ls -l /data/local/tmp/nas-search/agent.key").stdout.startswith("-rw-------"))
        self.assertTrue(self.shell("ls -ld /data/local/tmp/nas-search").stdout.startswith("drwx------"))

    def test_mistakes_say_what_to_do(self):
        for arguments, code, text in (
                (("deploy", "adb:"), 4, "several phones are attached and none is named"),
                (("deploy", "adb:nobody"), 4, "no such phone is attached"),
                (("deploy", "adb:*"), 2, "name one phone"),
                (("deploy", "adb:" + self.phones[0].serial, "--agents", "/no/such"), 4, "make agents"),
                (("stop", "adb:x", "--agents", "y"), 2, "unknown option"),
                (("status",), 2, "which phone"),
                (("logs", "R5CR1234"), 2, "which phone")):
            with self.subTest(arguments):
                self.assertIn(text, self.nas_agent(*arguments, code=code))

    def test_a_refused_push_names_the_folder(self):
        phone = self.phones[1]
        phone.order(fault={"push_fail": "nas-agent"})
        self.addCleanup(phone.order, fault={"push_fail": None})
        self.shell("rm -rf /data/local/tmp/nas-search", phone=1)
        self.assertIn("/data/local/tmp", self.nas_agent("deploy", "adb:" + phone.serial, "--agents", self.agents, code=4))

    def test_an_unplugging_in_the_middle_of_the_push_is_no_success(self):
        phone = self.phones[1]
        self.shell("rm -rf /data/local/tmp/nas-search", phone=1)
        phone.order(fault={"drop_after_kb": 60})
        said = self.nas_agent("deploy", "adb:" + phone.serial, "--agents", self.agents, code=4)
        self.assertIn("went away", said)
        self.lab.wait_state(phone, "device")
        self.assertIn("started", self.nas_agent("deploy", "adb:" + phone.serial, "--agents", self.agents))
        self.nas_agent("stop", "adb:" + phone.serial)


class Unauthorized(LabTest):
    def test_an_untrusted_computer_is_told_to_unlock_the_screen(self):
        phone = self.lab.phone("big_little", state="unauthorized", faults={"unauthorized": 1})
        done = subprocess.run([program("nas-agent"), "deploy", "adb:" + phone.serial], env=self.lab.environment,
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 4)
        self.assertIn("unlock its screen", done.stderr)


class Full(LabTest):
    def test_a_full_phone_is_told_apart(self):
        agent()
        phone = self.lab.phone("big_little", data_mb=1)
        self.lab.adb("-s", phone.serial, "shell", "dd if=/dev/zero of=/data/local/tmp/fill bs=1k count=2000; true",
                     check=False)
        done = subprocess.run([program("nas-agent"), "deploy", "adb:" + phone.serial, "--agents",
                               os.path.dirname(agent())], env=self.lab.environment, capture_output=True, text=True,
                              timeout=60)
        self.assertEqual(done.returncode, 4)
        self.assertIn("storage is full", done.stderr)


class NoAdb(LabTest):
    def test_without_adb_it_says_what_to_install(self):
        environment = {**self.lab.environment, "PATH": self.lab.folder, "ANDROID_ADB_SERVER_PORT": "1"}
        done = subprocess.run([program("nas-agent"), "status", "adb:*"], env=environment, capture_output=True, text=True,
                              timeout=60)
        self.assertEqual(done.returncode, 4)
        self.assertIn("apt-get install adb", done.stderr)
