"""The real adb client and server against fake phones: what it sees, what it moves, and every fault of the cable."""
import hashlib
import os
import signal
import subprocess
import sys
import time

import lab as rig
from rig_test import LabTest


class TwoPhones(LabTest):
    profiles = ("big_little", "little")

    def test_devices_lists_both_with_their_models(self):
        text = self.lab.adb("devices", "-l").stdout
        for phone, model in zip(self.phones, ("Rig_BigLittle", "Rig_Little")):
            line = next(x for x in text.splitlines() if x.startswith(phone.serial))
            self.assertIn("device product:rig model:" + model, line)
        self.assertEqual(text.count("product:"), 2, "somebody else's device: " + text)

    def test_the_server_speaks_the_newer_shell_with_them(self):
        self.assertIn("shell_v2", self.adb("features").stdout)

    def test_exit_codes_and_both_streams_arrive(self):
        done = self.shell("echo out; echo err >&2; exit 7")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (7, "out\n", "err\n"))

    def test_a_command_ended_by_a_signal_says_which(self):
        self.assertEqual(self.shell("kill -9 $$").returncode, 128 + signal.SIGKILL)

    def test_commands_run_as_the_shell_user(self):
        self.assertEqual(self.shell("id -u").stdout, "2000\n")

    def test_standard_input_arrives_and_ends(self):
        self.assertEqual(self.shell("wc -c", input="x" * 100000).stdout.strip(), "100000")

    def test_a_terminal_is_one(self):
        done = self.adb("shell", "-tt", "test -t 0 && echo terminal", stdin=subprocess.DEVNULL)
        self.assertIn("terminal", done.stdout)

    def test_exec_out_is_binary_clean(self):
        done = self.adb("exec-out", "printf '\\r\\n\\000\\377'", text=False)
        self.assertEqual(done.stdout, b"\r\n\0\xff")

    def test_64_megabytes_come_back_unchanged(self):
        folder, n = self.folder(), 64 << 20
        data = os.urandom(1 << 20) * 64
        with open(f"{folder}/out", "wb") as f:
            f.write(data)
        self.adb("push", f"{folder}/out", "/data/local/tmp/big")
        sums = self.shell("sha256sum < /data/local/tmp/big").stdout.split()
        self.adb("pull", "/data/local/tmp/big", f"{folder}/back")
        self.shell("rm /data/local/tmp/big")
        with open(f"{folder}/back", "rb") as f:
            back = f.read()
        self.assertEqual(len(back), n)
        self.assertEqual(hashlib.sha256(back).hexdigest(), sums[0])
        self.assertEqual(back, data)

    def test_trees_keep_names_and_modes(self):
        folder = self.folder()
        os.makedirs(f"{folder}/tree/a/b")
        for name, mode in (("a/run", 0o755), ("a/b/text", 0o644)):
            with open(f"{folder}/tree/{name}", "w") as f:
                f.write(name)
            os.chmod(f"{folder}/tree/{name}", mode)
        self.adb("push", f"{folder}/tree", "/data/local/tmp/")
        self.assertEqual(self.shell("cd /data/local/tmp/tree && cat a/run a/b/text && test -x a/run && "
                                    "! test -x a/b/text").stdout, "a/runa/b/text")
        self.assertIn("text", self.adb("ls", "/data/local/tmp/tree/a/b").stdout)
        self.adb("pull", "/data/local/tmp/tree", f"{folder}/back")
        self.assertTrue(os.path.exists(f"{folder}/back/a/b/text"))

    def test_a_forward_reaches_an_abstract_socket(self):
        """An echo in the phone, in the Python that runs the phone."""
        echo = ("import socket; s = socket.socket(socket.AF_UNIX); s.bind(chr(0) + 'echo'); s.listen();\n"
                "while True:\n c = s.accept()[0]\n while d := c.recv(4096): c.sendall(d)\n c.close()")
        shell = subprocess.Popen(["adb", "-s", self.phones[0].serial, "shell", sys.executable, "-c",
                                  f'"{echo}"'], env=self.lab.environment, stdin=subprocess.DEVNULL)
        self.addCleanup(rig.stop, shell)
        port = int(self.adb("forward", "tcp:0", "localabstract:echo").stdout)
        data = os.urandom(300000)
        rig.wait_for("echo", 10, lambda: self.exchange(port, data) == data)
        self.adb("forward", "--remove", f"tcp:{port}")

    @staticmethod
    def exchange(port, data):
        import socket
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.settimeout(5)
            got, sent = b"", 0
            try:
                while len(got) < len(data):
                    if sent < len(data):
                        sent += s.send(data[sent:sent + 8192])
                    part = s.recv(65536)
                    if not part:
                        return got
                    got += part
            except OSError:
                pass
            return got

    def test_phones_share_neither_files_nor_sockets(self):
        self.shell("touch /data/local/tmp/mine", phone=0)
        self.assertNotEqual(self.shell("cat /data/local/tmp/mine", phone=1).returncode, 0)
        for phone in (0, 1):
            self.assertEqual(self.shell("ls /sys/class/net 2>&1; cat /proc/net/unix", phone=phone).stdout.count("@"), 0)

    def test_nothing_executes_on_the_sdcard(self):
        done = self.shell("echo 'echo ran' > /sdcard/x; chmod 755 /sdcard/x; /sdcard/x")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("ermission denied", done.stderr)

    def test_frequencies_are_not_the_shell_users_to_write(self):
        done = self.shell("echo 500000 > /sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.shell("cat /sys/devices/system/cpu/cpu4/cpu_capacity").stdout, "1024\n")

    def test_temperatures_change_while_it_runs(self):
        zone = "class/thermal/thermal_zone0/temp"
        self.phones[0].order(sysfs={zone: 81000})
        self.assertEqual(self.shell("cat /sys/" + zone).stdout, "81000\n")
        self.assertIn("mValue=81.0", self.shell("dumpsys thermalservice").stdout)
        self.phones[0].order(sysfs={zone: 33000})

    def test_a_path_can_refuse_a_push(self):
        self.phones[0].order(fault={"push_fail": "forbidden"})
        done = self.adb("push", __file__, "/data/local/tmp/forbidden", check=False)
        self.phones[0].order(fault={"push_fail": None})
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("Permission denied", done.stdout + done.stderr)

    def test_a_killed_client_hangs_up_on_its_command(self):
        client = subprocess.Popen(["adb", "-s", self.phones[0].serial, "shell", "sleep 4321; true"],
                                  env=self.lab.environment, stdin=subprocess.DEVNULL)
        sleeps = lambda: any("4321" in word for p in self.phones[0].order()["processes"] for word in p[1:])
        rig.wait_for("the command", 10, sleeps)
        rig.stop(client, signal.SIGKILL)
        rig.wait_for("its end", 10, lambda: not sleeps())

    def test_commands_hang_when_told(self):
        self.phones[0].order(fault={"hang": "getprop"})
        with self.assertRaises(subprocess.TimeoutExpired):
            self.shell("getprop ro.hardware", timeout=1)
        self.phones[0].order(fault={"hang": None})
        self.assertEqual(self.shell("getprop ro.hardware").stdout, "rig\n")

    def test_messages_can_be_slow(self):
        began = time.monotonic()
        self.phones[0].order(fault={"latency_ms": 60})
        self.shell("true")
        self.phones[0].order(fault={"latency_ms": None})
        self.assertGreater(time.monotonic() - began, 0.12)


class Cable(LabTest):
    """Faults after which the phone comes back. One phone, so that the other tests do not meet a lost one."""

    profiles = ("little",)

    def tearDown(self):
        self.phones[0].order(replug=True)
        self.lab.wait_state(self.phones[0], "device")

    def test_an_unplugged_phone_is_offline_and_comes_back_by_itself(self):
        self.phones[0].order(unplug=1.0)
        self.lab.wait_state(self.phones[0], "offline")
        self.lab.wait_state(self.phones[0], "device")
        self.assertEqual(self.shell("echo back").stdout, "back\n")

    def test_a_lost_command_looks_successful_to_the_adb_program(self):
        """Why results count only with an exit frame: adb itself says 0 here."""
        shell = subprocess.Popen(["adb", "-s", self.phones[0].serial, "shell", "sleep 99; exit 3"],
                                 env=self.lab.environment, stdin=subprocess.DEVNULL)
        rig.wait_for("the command", 10, lambda: len(self.phones[0].order()["processes"]) > 0)
        self.phones[0].order(unplug=0.5)
        self.assertEqual(shell.wait(20), 0)

    def test_a_push_is_cut_after_as_many_bytes_as_told(self):
        folder = self.folder()
        with open(f"{folder}/big", "wb") as f:
            f.write(bytes(8 << 20))
        self.phones[0].order(fault={"drop_after_kb": 3000, "down_s": 0.5})
        done = self.adb("push", f"{folder}/big", "/data/local/tmp/big", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.phones[0].order()["counters"]["drops"], 1)
        self.lab.wait_state(self.phones[0], "device")
        self.adb("push", f"{folder}/big", "/data/local/tmp/big")

    def test_a_reboot_ends_all_processes_and_keeps_files(self):
        boot = "cat /proc/sys/kernel/random/boot_id"
        before = self.shell(boot).stdout
        self.shell("touch /data/local/tmp/kept; setsid sleep 777 >/dev/null 2>&1 < /dev/null &")
        rig.wait_for("the sleeper", 5, lambda: self.phones[0].order()["processes"])
        self.phones[0].order(reboot=0.5)
        rig.wait_for("their end", 5, lambda: not self.phones[0].order()["processes"])
        self.lab.wait_state(self.phones[0], "device")
        self.assertEqual(self.shell("ls /data/local/tmp/kept").returncode, 0)
        self.assertNotEqual(self.shell(boot).stdout, before)

    def test_a_stopped_server_leaves_a_detached_process_alone(self):
        """What an agent relies on: setsid and no terminal survive the cable."""
        self.shell("setsid sleep 888 >/dev/null 2>&1 < /dev/null &")
        self.phones[0].order(unplug=0.3)
        self.lab.wait_state(self.phones[0], "device")
        self.assertIn("sleep", [p[1] for p in self.phones[0].order()["processes"]])
        self.assertEqual(self.phones[0].order(kill="888")["killed"], 1)


class Refusals(LabTest):
    profiles = ()

    def test_an_unauthorized_phone_says_so_until_it_is_tapped(self):
        phone = self.lab.phone("little", state="unauthorized", faults={"unauthorized": 1})
        done = self.lab.adb("-s", phone.serial, "shell", "true", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("unauthorized", done.stderr)
        phone.order(authorize=True)
        self.lab.wait_state(phone, "device")
        self.assertEqual(self.lab.adb("-s", phone.serial, "shell", "echo ok").stdout, "ok\n")

    def test_a_full_phone_refuses_a_push_and_has_room_afterwards(self):
        phone = self.lab.phone("little", data_mb=2)
        folder = self.folder()
        for name, size in (("big", 5 << 20), ("small", 1 << 20)):
            with open(f"{folder}/{name}", "wb") as f:
                f.write(bytes(size))
        done = self.lab.adb("-s", phone.serial, "push", f"{folder}/big", "/data/local/tmp/big", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("No space left on device", done.stdout + done.stderr)
        self.lab.adb("-s", phone.serial, "push", f"{folder}/small", "/data/local/tmp/small")


class OldPhone(LabTest):
    profiles = ("armv7",)

    def test_a_phone_before_android_7_has_one_stream_and_no_exit_code(self):
        self.assertNotIn("shell_v2", self.adb("features").stdout)
        done = self.shell("echo out; echo err >&2; exit 7")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("err", done.stdout)
