#!/usr/bin/env python3
"""lab.py - fake phones and an adb server of their own, for tests and for trying things without a phone.

    lab.py --phone big_little [--phone little ...] -- COMMAND...

runs COMMAND with ANDROID_ADB_SERVER_PORT and HOME set, so that `adb` and our programs see exactly these phones; the
serials stand in RIG_SERIALS (one word each) and replace {0}, {1}.. in COMMAND; control sockets in RIG_CONTROLS. In Python:

    with Lab() as lab:
        phone = lab.phone("big_little")
        lab.adb("-s", phone.serial, "shell", "id")
        phone.order(unplug=2)

Everything lives in one temporary folder and ends with this process, however that ends. The server keeps its keys in
that folder; it, the phones and COMMAND have a network of their own and see no USB, unless --shared is given. Exit code 77 and a reason when something is missing: a skip.
"""
import argparse
import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import sandbox

HERE = os.path.dirname(os.path.abspath(__file__))
EXIT_SKIP = 77


class Unavailable(Exception):
    """This machine cannot have a fake phone; the text says why."""


def tools_dir():
    return os.path.abspath(os.environ.get("NAS_RIG_DIR", os.path.join(HERE, "../../build/release/rig")))


def need(*programs):
    for name, package in programs:
        if shutil.which(name) is None:
            raise Unavailable(f"{name} is not installed (Debian: apt-get install {package})")


def profile_path(name):
    return name if "/" in name else f"{HERE}/profiles/{name}.json"


def wait_for(what, seconds, ask):
    """Asks until the answer is true; returns it."""
    end = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)
    return answer


def stop(process, signal_number=signal.SIGTERM):
    if process.poll() is None:
        process.send_signal(signal_number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def move_apart(state={"done": False}):
    """Moves this process, once, where there is no network but a loopback of its own and no USB: no port clashes, the
    server finds no emulators that run here and takes no phone from the server of the person who runs the tests."""
    if state["done"]:
        return
    uid, gid = os.getuid(), os.getgid()
    try:
        sandbox.unshare(sandbox.NEWUSER | sandbox.NEWNS | sandbox.NEWNET)
        sandbox.map_ids(uid, uid, gid)
        sandbox.mount(None, "/", None, sandbox.MS_REC | sandbox.MS_PRIVATE)
        sandbox.loopback_up()
        if os.path.isdir("/dev/bus"):
            sandbox.mount("tmpfs", "/dev/bus", "tmpfs")
    except OSError as e:
        raise Unavailable(f"no user namespaces for unprivileged users here: {e}") from e
    state["done"] = True


class Phone:
    def __init__(self, folder, profile, data_mb=None, data_noexec=False, faults=None, port=0):
        arguments = ["--profile", profile_path(profile), "--state", folder, "--tools", tools_dir(), "--port", str(port)]
        if data_mb:
            arguments += ["--data-mb", str(data_mb)]
        arguments += ["--data-noexec"] if data_noexec else []
        for k, v in (faults or {}).items():
            arguments += ["--fault", f"{k}={v}"]
        self.folder, self.stderr = folder, open(folder + ".stderr", "w+")
        with open(profile_path(profile)) as f:
            self.profile = json.load(f)
        self.process = subprocess.Popen([sys.executable, f"{HERE}/fake_phone.py", *arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.stderr, text=True)
        line = self.process.stdout.readline().split()
        if len(line) != 3:
            code = self.process.wait()
            self.stderr.seek(0)
            raise (Unavailable if code == 3 else RuntimeError)(self.stderr.read().strip())
        self.serial = line[2]

    def order(self, **request):
        """See fake_phone.py; the phone's answer."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(self.folder + "/control")
            s.sendall((json.dumps(request) + "\n").encode())
            answer = json.loads(s.makefile().readline())
        if not answer["ok"]:
            raise RuntimeError(answer["error"])
        return answer

    def data(self, path):
        """Where a file of the phone lies on the host (not with data_mb)."""
        return self.folder + path

    def close(self):
        self.process.stdin.close()
        stop(self.process)
        self.process.stdout.close()
        self.stderr.close()


class Lab:
    def __init__(self, shared=False):
        """shared: in the network of the host, so that processes that are not ours can reach the server."""
        need(("adb", "adb"))
        if not shared:
            move_apart()
        self.phones, self.server = [], None
        self.folder = tempfile.mkdtemp(prefix="nas-rig-")
        atexit.register(self.close)  # also when nobody gets to it
        self.environment = {**os.environ, "HOME": self.folder, "TMPDIR": self.folder, "ADB_LOCAL_TRANSPORT_MAX_PORT":
                            "5553", "ADB_MDNS": "0"}
        for name in ("ANDROID_SERIAL", "ANDROID_ADB_SERVER_ADDRESS", "ADB_SERVER_SOCKET", "ADB_VENDOR_KEYS"):
            self.environment.pop(name, None)

    def __enter__(self):
        try:
            self.start_server()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def start_server(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.environment["ANDROID_ADB_SERVER_PORT"] = str(self.port)
        self.server_log = open(self.folder + "/server.log", "w+")
        self.server = subprocess.Popen(["adb", "-P", str(self.port), "nodaemon", "server"], env=self.environment,
                                       preexec_fn=lambda: sandbox.die_with_parent(signal.SIGTERM),
                                       stdin=subprocess.DEVNULL, stdout=self.server_log, stderr=self.server_log)
        wait_for("adb server", 10, self.answers)

    def answers(self):
        if self.server.poll() is not None:
            raise RuntimeError("the adb server ended: " + open(self.folder + "/server.log").read()[-500:])
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def adb(self, *arguments, check=True, **options):
        """The real client; output as text unless told otherwise."""
        options = {"capture_output": True, "text": True, "timeout": 60, **options}
        return subprocess.run(["adb", *arguments], env=self.environment, check=check, **options)

    def phone(self, profile, state="device", **options):
        if (arch := json.load(open(profile_path(profile)))["arch"]) in sandbox.MACHINES:
            need((sandbox.MACHINES[arch][2], "qemu-user"))
        phone = Phone(f"{self.folder}/phone{len(self.phones)}", profile, **options)
        self.phones.append(phone)
        self.adb("connect", phone.serial, check=False)
        self.wait_state(phone, state)
        return phone

    def state(self, phone):
        lines = self.adb("devices").stdout.splitlines()[1:]
        return dict(line.split("\t") for line in lines if "\t" in line).get(phone.serial, "absent")

    def wait_state(self, phone, state, seconds=20):
        """A phone whose cable fell out stays a device to the server until it reads from it: one that is back answers."""

        def there():
            return self.state(phone) == state and (state != "device" or self.echoes(phone))

        wait_for(f"{phone.serial} {state}", seconds, there)

    def echoes(self, phone):
        return "back" in self.adb("-s", phone.serial, "shell", "echo back", check=False).stdout

    def close(self):
        """May be called again."""
        atexit.unregister(self.close)
        for phone in self.phones:
            phone.close()
        self.phones = []
        if self.server is not None:
            stop(self.server)
            self.server_log.close()
            self.server = None
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--phone", action="append", default=[], metavar="PROFILE", help="name in profiles/ or a path")
    p.add_argument("--shared", action="store_true", help="stay in the host's network")
    p.add_argument("--data-mb", type=int, help="size of the phones' /data")
    p.add_argument("command", nargs="+", metavar="COMMAND")
    a = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Lab(a.shared) as lab:
            phones = [lab.phone(name, data_mb=a.data_mb) for name in a.phone]
            serials = [x.serial for x in phones]
            environment = {**lab.environment, "RIG_SERIALS": " ".join(serials),
                           "RIG_CONTROLS": " ".join(x.folder + "/control" for x in phones)}
            words = a.command
            for i, serial in enumerate(serials):
                words = [w.replace("{%d}" % i, serial) for w in words]
            return subprocess.run(words, env=environment).returncode
    except Unavailable as e:
        print(f"lab: {e}", file=sys.stderr)
        return EXIT_SKIP


if __name__ == "__main__":
    sys.exit(main())
