"""Whole studies on two fake phones, through the real adb. Their clocks are virtual, so whatever happens to cables, agents
and the controller on the way, the result must be that of an undisturbed run, to the last bit: nothing lost, nothing
counted twice."""
import os
import shutil
import signal
import unittest

import lab as rig
from rig_test import LabTest, agent
from study import Study

TIMEOUT_S = 400


class Studies(LabTest):
    profiles = ("virtual", "virtual_little")
    undisturbed = None

    @classmethod
    def setUpClass(cls):
        if shutil.which("aarch64-linux-gnu-gcc") is None:
            raise unittest.SkipTest("aarch64-linux-gnu-gcc is not installed (apt-get install gcc-aarch64-linux-gnu)")
        agent()
        super().setUpClass()
        cls.shared = cls.lab.folder + "/studies"
        os.mkdir(cls.shared)

    def tearDown(self):
        for phone in self.phones:
            phone.order(replug=True, fault={"drop_on_send": None, "drop_on_receive": None, "down_s": None})
            self.lab.wait_state(phone, "device")

    def study(self, name):
        big, little = (p.serial for p in self.phones)
        return Study(self.lab, self.shared, name=name, trials=4, finals=1, more=f'''target = "auto"
[objectives]
maximise = ["psnr_y"]
minimise = ["latency_p90_ms@big", "latency_p90_ms@little"]
[[device]]
name = "big"
connect = "adb:{big}"
threads = 1
[[device]]
name = "little"
connect = "adb:{little}"
threads = 1
''')

    def expected(self):
        """The numbers of the undisturbed run, made once."""
        if Studies.undisturbed is None:
            study = self.study("undisturbed")
            done = study.run(timeout=TIMEOUT_S)
            self.assertEqual(done.returncode, 0, done.stderr)
            Studies.undisturbed = (study, study.numbers(), done.stdout)
        return Studies.undisturbed

    def assert_as_undisturbed(self, study):
        self.maxDiff = None
        for mine, theirs in zip(study.numbers(), self.expected()[1]):
            self.assertEqual(mine, theirs)
        twice = study.rows("SELECT trial_id, role, device_id, count(*) FROM measurements WHERE role <> 'reference' "
                           "GROUP BY 1, 2, 3 HAVING count(*) > 1")
        self.assertEqual(twice, [], "measured or stored twice")

    def bench_runs(self, phone):
        return any("--bench" in p for p in self.phones[phone].order()["processes"])

    def disturbed(self, name, *steps):
        """Runs a study while the steps are taken, one after another, and compares it with the undisturbed one."""
        self.expected()
        for phone in (0, 1):  # the phones know the programs already
            self.shell("rm -rf /data/local/tmp/nas-search/cache", phone=phone)
        study = self.study(name)
        process = study.start()
        self.addCleanup(rig.stop, process)
        for step in steps:
            step(process)
        self.assertEqual(process.wait(TIMEOUT_S), 0, study.log())
        self.assert_as_undisturbed(study)
        return study

    def wait_bench(self, phone, process):
        def running():
            self.assertIsNone(process.poll(), "the study ended early")
            return self.bench_runs(phone)
        rig.wait_for("a run on the phone", 200, running)

    def drops(self, phone):
        return self.phones[phone].order()["counters"].get("drops", 0)

    def wait_drop(self, phone, before, process):
        def dropped():
            self.assertIsNone(process.poll(), "the study ended early")
            return self.drops(phone) > before
        rig.wait_for("the fault", 200, dropped)

    def test_a_study_on_two_phones_ends_with_a_front_that_says_simulated(self):
        study, (trials, latencies, front), table = self.expected()
        self.assertEqual(len(trials), 5, "the supernet and four trials")
        self.assertEqual({row[1] for row in trials}, {"COMPLETE"})
        self.assertGreaterEqual(len(front), 1)
        self.assertEqual({row[2] for row in latencies}, {"big", "little"})
        self.assertEqual({row[3] for row in latencies}, {1}, "a latency that does not say simulated")
        self.assertGreater(len({row[4] for row in latencies}), 5, "networks differ, their latencies do not")
        self.assertEqual(table.count("SIMULATED latency"), 2)
        programs = study.rows("SELECT d.name, group_concat(DISTINCT a.target) FROM measurements m JOIN devices d ON "
                              "d.id = m.device_id JOIN artifacts a ON a.id = m.artifact_id GROUP BY 1 ORDER BY 1")
        self.assertEqual(programs, [("big", "aarch64-dotprod"), ("little", "aarch64-linux")],
                         "each gets programs for what it has")

    def test_cables_lost_in_upload_run_and_result_change_nothing(self):
        big, little = self.phones
        before = self.drops(0), self.drops(1)
        little.order(fault={"drop_on_receive": "PUT /v1/blob", "down_s": 0.6})

        def unplug_in_the_run(process):
            self.wait_drop(1, before[1], process)
            self.wait_bench(0, process)
            big.order(unplug=0.6)

        def lose_a_result(process):
            self.lab.wait_state(big, "device")
            big.order(fault={"drop_on_send": '"samples_us"', "down_s": 0.6})
            self.wait_drop(0, before[0], process)

        self.disturbed("unplugged", unplug_in_the_run, lose_a_result)

    def test_a_second_controller_a_killed_agent_and_a_reboot_change_nothing(self):
        """The agent that is started after each has a new key. The second controller is refused."""
        big, little = self.phones

        def second_controller(process):
            self.wait_bench(0, process)
            other = self.study("second").run(timeout=60)
            self.assertEqual(other.returncode, 4, other.stderr)
            self.assertIn("another controller uses this phone", other.stderr)

        def kill_the_agent(process):
            self.wait_bench(0, process)
            self.assertEqual(big.order(kill="serve")["killed"], 1)

        def reboot(process):
            self.wait_bench(1, process)
            little.order(reboot=0.6)

        self.disturbed("killed-agents", second_controller, kill_the_agent, reboot)

    def test_a_killed_controller_resumes_and_its_run_is_reaped(self):
        self.expected()
        study = self.study("killed")
        process = study.start()
        self.addCleanup(rig.stop, process)
        rig.wait_for("two finished trials", 300, lambda: process.poll() is not None or len(
            study.rows("SELECT 1 FROM v_trial WHERE state = 'COMPLETE'")) >= 2)
        self.wait_bench(0, process)
        rig.stop(process, signal.SIGKILL)
        done = study.run(timeout=TIMEOUT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_as_undisturbed(study)

    def test_a_phone_gone_for_good_stops_nothing_but_its_own_work(self):
        """The other goes on; the end says who is missing and what to do, and the same command ends the study later."""
        self.expected()
        study = self.study("gone")
        process = study.start("--set", "measure.away_s=1")
        self.addCleanup(rig.stop, process)
        rig.wait_for("a finished trial", 300, lambda: process.poll() is not None or study.rows(
            "SELECT 1 FROM v_trial WHERE state = 'COMPLETE'"))
        self.wait_bench(1, process)
        self.phones[1].order(unplug=3600)
        self.assertEqual(process.wait(TIMEOUT_S), 4, study.log())
        self.assertIn("connect it and run the same command again", study.log())
        self.assertIn("little is lost, its work goes back to queue little", study.log())
        self.phones[1].order(replug=True)
        self.lab.wait_state(self.phones[1], "device")
        done = study.run(timeout=TIMEOUT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_as_undisturbed(study)


class FullPhone(LabTest):
    profiles = ("virtual",)
    phone_options = {"data_mb": 5}  # the agent, and no room for a candidate

    def test_a_full_phone_ends_a_study_with_what_to_do(self):
        agent()
        study = Study(self.lab, self.folder(), name="full", trials=4, finals=1, more=f'''target = "auto"
[[device]]
name = "full"
connect = "adb:{self.phones[0].serial}"
threads = 1
''')
        done = study.run(timeout=TIMEOUT_S)
        self.assertEqual(done.returncode, 4, done.stdout)
        self.assertIn("disk full", done.stderr)
