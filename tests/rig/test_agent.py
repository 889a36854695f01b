"""The agent on a phone, reached through the real adb: what bad candidates, cables and strangers do to it."""
import http.client
import json
import os
import subprocess
import time

import lab as rig
from agent_client import Agent, Forged, HOME, deploy, sha256
from rig_test import LabTest, compile_network

SCRIPT = b"#!/system/bin/sh\n"
GOOD = SCRIPT + b'echo "{\\"schema\\": 1}"\n'


class Candidates(LabTest):
    """Programs that misbehave. An x86-64 phone: native, so that every limit of the sandbox is the kernel's."""

    profiles = ("x86_64",)

    def setUp(self):
        self.name = "agent-" + os.urandom(4).hex()
        self.home = f"{HOME}/{self.name}"
        self.port, self.key = deploy(self.lab, self.phones[0], self.folder(), self.name)
        self.agent = Agent(self.port, self.key)

    def tearDown(self):
        try:
            Agent(self.port, self.key).call("POST", "/v1/stop")
        except (OSError, ValueError):
            pass  # it is gone already
        self.adb("forward", "--remove-all", check=False)
        rig.wait_for("the agent's end", 20, lambda: not self.running(self.name))

    def running(self, word):
        return [p for p in self.phones[0].order()["processes"] if any(word in w for w in p[1:])]

    def still_works(self):
        run = self.agent.run(GOOD)
        self.assertEqual(run["state"], "done", run)
        self.assertEqual(self.shell(f"ls {self.home}/cache | grep -c run-").stdout.strip(), "0", "a run's folder stays")

    def test_one_that_hangs_is_killed_at_its_deadline(self):
        run = self.agent.run(SCRIPT + b"exec sleep 600\n", deadline_ms=300)
        self.assertEqual(run["state"], "killed")
        self.assertIn("deadline of 300 ms", run["error"])
        self.still_works()

    def test_one_that_forks_takes_its_children_along(self):
        run = self.agent.run(SCRIPT + b"for i in 1 2 3 4 5; do sleep 601 & done; wait\n", deadline_ms=500)
        self.assertEqual(run["state"], "killed")
        rig.wait_for("no child left", 10, lambda: not self.running("601"))
        self.still_works()

    def test_one_that_crashes_is_told_with_its_signal(self):
        run = self.agent.run(SCRIPT + b"kill -SEGV $$\n")
        self.assertEqual((run["state"], run["signal"]), ("failed", 11))
        self.still_works()

    def test_one_that_prints_garbage_has_no_result(self):
        run = self.agent.run(SCRIPT + b"head -c 100000 /dev/urandom; echo bad >&2\n")
        self.assertEqual(run["state"], "failed")
        self.assertIn("no JSON object", run["error"])
        self.assertNotIn("bench", run)
        self.still_works()

    def test_one_that_writes_a_gigabyte_is_stopped_and_cleaned_up(self):
        run = self.agent.run(SCRIPT + b"exec dd if=/dev/zero of=big bs=1048576 count=1024\n", deadline_ms=30000)
        self.assertEqual(run["state"], "failed")
        self.assertLess(int(self.shell(f"du -sk {self.home} | cut -f1").stdout), 70 * 1024)
        self.still_works()

    def test_a_lost_cable_in_the_middle_of_an_upload_leaves_no_half_program(self):
        blob = GOOD + b"#" * (4 << 20)
        self.phones[0].order(fault={"drop_after_kb": 1500, "down_s": 0.5})
        with self.assertRaises((OSError, ValueError, Forged)):
            self.agent.put(blob)
        self.reconnect()
        self.assertEqual(self.agent.call("GET", f"/v1/blob/{sha256(blob)}")[0], 404)
        self.assertEqual(self.agent.run(blob)["state"], "done")

    def reconnect(self):
        """A forward goes with the cable, and the server sees late that one is out: until then it forwards into it."""

        def answers():
            try:
                self.port = int(self.adb("forward", "tcp:0", "localabstract:" + self.name).stdout)
                self.agent = Agent(self.port, self.key)
                return self.agent.call("GET", "/v1/info")[0] == 200
            except (subprocess.CalledProcessError, http.client.HTTPException, OSError, ValueError):
                return False

        rig.wait_for("the agent through a new forward", 30, answers)

    def test_a_lost_cable_in_the_middle_of_a_run_leaves_the_run_alone(self):
        number = self.agent.start(SCRIPT + b'sleep 2; echo "{\\"schema\\": 1}"\n')
        self.phones[0].order(unplug=0.5)
        self.reconnect()
        self.assertEqual(self.agent.result(number)["state"], "done")

    def test_a_controller_that_is_gone_has_its_run_reaped(self):
        blob = SCRIPT + b"exec sleep 602\n"
        status, lease = self.agent.call("POST", "/v1/session?holder=test&lease_ms=1000")
        self.assertEqual(status, 201)
        ours = "session=" + lease["session"]
        self.assertEqual(self.agent.call("PUT", f"/v1/blob/{sha256(blob)}?{ours}", blob)[0], 201)
        status, _ = self.agent.call("POST", f"/v1/run?blob={sha256(blob)}&deadline_ms=100000&{ours}")
        self.assertEqual(status, 202)
        self.agent.link.close()
        rig.wait_for("the run", 10, lambda: self.running("602"))
        rig.wait_for("its end", 20, lambda: not self.running("602"))

    def test_a_second_controller_is_refused_with_the_name_of_the_first(self):
        self.assertEqual(self.agent.call("POST", "/v1/session?holder=first")[0], 201)
        status, answer = Agent(self.port, self.key).call("POST", "/v1/session?holder=second")
        self.assertEqual((status, answer["holder"]), (409, "first"))

    def test_a_stranger_with_another_key_gets_nothing(self):
        stranger = Agent(self.port, os.urandom(32))
        with self.assertRaisesRegex(Forged, "status 401"):
            stranger.call("GET", "/v1/info")

    def test_a_killed_agent_takes_its_run_along(self):
        self.agent.start(SCRIPT + b"exec sleep 603\n", deadline_ms=60000)
        rig.wait_for("the run", 10, lambda: self.running("603"))
        self.phones[0].order(kill="serve")
        rig.wait_for("its end", 10, lambda: not self.running("603"))

    def test_a_jump_of_the_phones_clock_changes_no_deadline(self):
        """Deadlines are of a clock that nobody sets; here the phone's date is far off from ours."""
        info = self.agent.call("GET", "/v1/info")[1]
        self.assertIn("rlimits", info["limits"])
        began = time.monotonic()
        self.assertEqual(self.agent.run(SCRIPT + b"exec sleep 600\n", deadline_ms=400)["state"], "killed")
        self.assertLess(time.monotonic() - began, 15)


class FullPhone(LabTest):
    profiles = ("x86_64",)
    phone_options = {"data_mb": 12}

    def test_a_full_phone_refuses_the_upload_with_a_reason(self):
        port, key = deploy(self.lab, self.phones[0], self.folder())
        agent = Agent(port, key)
        status, answer = agent.put(GOOD + b"#" * (16 << 20))
        self.assertEqual(status, 507, answer)
        self.assertIn("disk full", answer["error"])
        self.assertEqual(agent.run(GOOD)["state"], "done")


class EmulatedPhones(LabTest):
    """The same agent, compiled for the phones' processors."""

    profiles = ("big_little", "riscv64", "armv7")

    def test_each_runs_its_own_agent_and_times_a_network(self):
        for i, target in enumerate(("aarch64-linux", "riscv64-linux", "armv7-linux")):
            with self.subTest(target):
                agent = Agent(*deploy(self.lab, self.phones[i], self.folder()))
                with open(compile_network(self.folder(), target, height=8, width=8), "rb") as f:
                    program = f.read()
                cpu = self.phones[i].profile["clusters"][-1]["cpus"][1]
                run = agent.run(program, deadline_ms=60000, cpus=cpu, min_batches=5, min_time_ms=1, max_time_ms=100,
                                warmup_ms=1, warmup_cap_ms=10)
                self.assertEqual(run["state"], "done", json.dumps(run)[:500])
                self.assertEqual(run["bench"]["cpus_effective"][0], str(cpu))
                self.assertGreater(run["bench"]["p50_us"], 0)
