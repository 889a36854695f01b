"""Programs of other machines inside a phone, and the virtual clock: equal work takes equal time, in every process."""
import json
import subprocess
import unittest

import rig_test
from rig_test import LabTest, compile_network

QUICK = "--bench --warmup-ms 5 --warmup-cap-ms 40 --min-time-ms 5"
PROCESSES = 20
# What a clock decides; the rest of the document (peak memory, switches) is the host's.
TIMES = ("first_us", "p50_us", "p50_lo_us", "p50_hi_us", "p10_us", "p90_us", "min_us", "mad_us", "samples_us",
         "batch_size", "batches", "dropped")


class VirtualClock(LabTest):
    profiles = ("virtual",)

    def bench(self, name, options=QUICK):
        done = self.shell(f"/data/local/tmp/{name} {options}")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def push_network(self, name, target="aarch64-linux", **shape):
        self.adb("push", compile_network(self.folder(), target, **shape), f"/data/local/tmp/{name}")

    def test_20_processes_measure_the_same_to_the_last_bit(self):
        self.push_network("net", height=12, width=16)
        first = self.bench("net")
        for i in range(1, PROCESSES):
            again = self.bench("net")
            self.assertEqual([again[k] for k in TIMES], [first[k] for k in TIMES], f"process {i}")
        self.assertEqual(len(set(first["samples_us"])), 1)

    def test_time_follows_the_work(self):
        self.push_network("one", channels=(3, 8, 8, 3), height=12, width=16)
        self.push_network("two", channels=(3, 8, 8, 3), height=24, width=16)
        ratio = self.bench("two")["p50_us"] / self.bench("one")["p50_us"]
        self.assertAlmostEqual(ratio, 2, delta=0.15)

    def test_dot_products_are_not_needed_and_pinning_is_read_back(self):
        self.push_network("net")
        self.assertEqual(self.bench("net", QUICK + " --cpus 2")["cpus_effective"][0], "2")

    def test_untimed_programs_keep_the_real_clock(self):
        """An agent has to notice deadlines: only --bench gets the virtual clock."""
        self.adb("push", rig_test.agent(), "/data/local/tmp/nas-agent")
        state = json.loads(self.shell("/data/local/tmp/nas-agent doctor").stdout)
        self.assertGreater(state["state"]["unix_time_ms"], 1600000000000)
        self.assertEqual(state["system"]["clock_source"], self.phones[0].profile["clock"]["name"])

    def test_another_virtual_clock_is_another_device(self):
        """Its name is part of the fingerprint: numbers of different clocks are never compared."""
        self.adb("push", rig_test.agent(), "/data/local/tmp/nas-agent")
        doctor = lambda: json.loads(self.shell("/data/local/tmp/nas-agent doctor").stdout)["fingerprint"]
        clock, before = "devices/system/clocksource/clocksource0/current_clocksource", doctor()
        self.assertEqual(doctor(), before)
        self.phones[0].order(sysfs={clock: "virtual-other"})
        self.assertNotEqual(doctor(), before)
        self.phones[0].order(sysfs={clock: self.phones[0].profile["clock"]["name"]})


class Processors(LabTest):
    """Emitted code on cores that have what it needs, and on cores that do not."""

    profiles = ("big_little", "little")

    def test_a_program_for_absent_features_names_one_and_exits_with_2(self):
        model = compile_network(self.folder(), "aarch64-dotprod")
        for phone, code in ((0, 0), (1, 2)):
            self.adb("push", model, "/data/local/tmp/dot", phone=phone)
            done = self.shell("/data/local/tmp/dot --info", phone=phone)
            self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn("asimddp", done.stderr)

    def test_threads_are_pinned_to_big_cores_and_read_back(self):
        self.adb("push", compile_network(self.folder(), "aarch64-linux"), "/data/local/tmp/net")
        done = json.loads(self.shell("/data/local/tmp/net --bench --cpus 6 --warmup-ms 1 --min-time-ms 1 "
                                     "--max-time-ms 100").stdout)
        self.assertEqual(done["cpus_effective"][0], "6")


class OtherMachines(LabTest):
    profiles = ("armv7", "riscv64")

    def test_networks_run_on_32_bit_arm_and_on_riscv(self):
        for phone, target in enumerate(("armv7-linux", "riscv64-linux")):
            with self.subTest(target):
                try:
                    model = compile_network(self.folder(), target)
                except unittest.SkipTest as e:
                    self.skipTest(str(e))
                self.adb("push", model, "/data/local/tmp/net", phone=phone)
                self.shell("chmod 700 /data/local/tmp/net", phone=phone)
                info = json.loads(self.shell("/data/local/tmp/net --info", phone=phone).stdout)
                self.assertEqual(info["name"], "tiny")


class Alone(unittest.TestCase):
    def test_the_emulators_plugin_refuses_what_it_does_not_know(self):
        import lab as rig
        import shutil
        if shutil.which("qemu-aarch64") is None:
            self.skipTest("qemu-aarch64 is not installed (Debian: apt-get install qemu-user)")
        done = subprocess.run(["qemu-aarch64", "-plugin", f"{rig.tools_dir()}/vclock.so,speed=3", "/bin/true"],
                              capture_output=True, text=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("vclock: 'speed=3': need mhz=N or <class>=CYCLES", done.stderr)
