#!/usr/bin/env python3
"""fake_phone.py - an Android phone for tests: the real adb connects to it, programs of its architecture run in it.

    fake_phone.py --profile profiles/big_little.json --state DIR --tools build/release/rig [--data-mb N] [--fault K=V]...

Prints one line, "fake phone 127.0.0.1:PORT", and lives until its standard input ends or it gets SIGTERM. Everything
it runs dies with it. DIR/control is a unix socket: one JSON object a line, answered by one, see control() below.
Faults, from the start with --fault or at any time with {"fault": {...}}, a null takes one back:
    unauthorized=1       the owner has not allowed this computer
    latency_ms=N         every message takes so long
    drop_after_kb=N      the cable falls out once, N KiB from now
    push_fail=REGEX      pushing to a path that matches is refused
    hang=REGEX           shell commands that match hang
    drop_on_receive=RE   the cable falls out once, when a message that matches arrives
    drop_on_send=RE      the cable falls out once, before a message that matches leaves
    down_s=S             how long the cable stays out when one of the three strikes (0)
No space on the device: --data-mb; a phone that executes nothing: --data-noexec. Needs Linux 6.7 (binfmt_misc in user namespaces), qemu-user, unprivileged user
namespaces; no root. Exit code 3 and a reason on stderr when the machine cannot do it.
"""
import argparse
import asyncio
import json
import os
import re
import signal
import socket
import sys
import time

import adbd
import sandbox

EXIT_UNAVAILABLE = 3


class Phone:
    def __init__(self, profile, faults):
        self.profile, self.faults, self.links, self.counters = profile, dict(faults), set(), {}
        self.down_until, self.bytes_in, self.drop_at = 0.0, 0, None
        self.set_faults({})
        self.environment = {"PATH": "/system/bin:/usr/bin:/bin", "HOME": "/", "TMPDIR": "/data/local/tmp",
                            "ANDROID_DATA": "/data", "ANDROID_ROOT": "/system", "SHELL": "/system/bin/sh",
                            "USER": "shell", "LANG": "C"}

    def log(self, *what):
        if os.environ.get("RIG_DEBUG"):
            print("fake phone:", *what, file=sys.stderr, flush=True)

    def count(self, what, by=1):
        self.counters[what] = self.counters.get(what, 0) + by

    def set_faults(self, changes):
        self.faults.update(changes)
        self.faults = {k: v for k, v in self.faults.items() if v is not None}
        kb = self.faults.pop("drop_after_kb", None)
        if kb is not None:
            self.drop_at = self.bytes_in + int(float(kb) * 1024)

    def matches(self, fault, data):
        """Is this the message on which the cable falls out? Once."""
        pattern = self.faults.get(fault)
        if pattern is None or not re.search(pattern.encode(), data):
            return False
        del self.faults[fault]
        self.count("drops")
        self.unplug(float(self.faults.get("down_s", 0)))
        return True

    async def cable(self, data):
        """Called for the payload of each message that arrives."""
        self.bytes_in += len(data)
        self.matches("drop_on_receive", data)
        if self.faults.get("latency_ms"):
            await asyncio.sleep(float(self.faults["latency_ms"]) / 1000)
        if self.drop_at is not None and self.bytes_in > self.drop_at:
            self.drop_at = None
            self.count("drops")
            self.unplug(float(self.faults.get("down_s", 0)))

    def unplug(self, seconds):
        """The cable falls out; for so long nobody who connects is heard."""
        self.down_until = max(self.down_until, time.monotonic() + seconds)
        for link in list(self.links):
            link.drop()

    def replug(self):
        self.down_until = 0.0

    def reboot(self, seconds):
        """Every process ends at once, files stay, the boot id is another."""
        self.count("reboots")
        self.unplug(seconds)
        while processes():
            try:
                os.kill(-1, signal.SIGKILL)  # all in this pid namespace but its process 1 and ourselves
            except ProcessLookupError:
                pass  # the last one ended by itself
            time.sleep(0.01)
        sandbox.new_boot_id()

    async def authorize(self):
        self.set_faults({"unauthorized": None})
        for link in list(self.links):
            if not link.online:
                await link.connect()

    async def client(self, reader, writer):
        # asyncio does it for sockets that say they are TCP; without it head and payload wait 40 ms for each other
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = adbd.Link(self, reader, writer)
        if time.monotonic() < self.down_until:
            writer.transport.abort()
            return
        self.count("connections")
        self.links.add(link)
        try:
            await link.run()
        except (OSError, asyncio.IncompleteReadError) as e:
            self.log("link ended", repr(e))
        finally:
            self.links.discard(link)
            link.drop()

    async def order(self, request):
        """unplug: seconds, replug, reboot: seconds, authorize, sysfs: {path: text}, fault: {..}, kill: name, stats."""
        if "fault" in request:
            self.set_faults(request["fault"])
        for path, text in request.get("sysfs", {}).items():
            os.chmod("/sys/" + path, 0o644)
            with open("/sys/" + path, "w") as f:
                f.write(f"{text}\n")
        if "unplug" in request:
            self.unplug(float(request["unplug"]))
        if "reboot" in request:
            self.reboot(float(request["reboot"]))
        if request.get("replug"):
            self.replug()
        if request.get("authorize"):
            await self.authorize()
        killed = kill_named(request["kill"]) if "kill" in request else None
        return {"ok": True, "counters": self.counters, "bytes_in": self.bytes_in, "killed": killed,
                "processes": processes()}

    async def control(self, reader, writer):
        while line := await reader.readline():
            try:
                answer = await self.order(json.loads(line))
            except (OSError, ValueError, TypeError) as e:
                answer = {"ok": False, "error": repr(e)}
            writer.write((json.dumps(answer) + "\n").encode())
            await writer.drain()
        writer.close()


def processes():
    """Command lines of what runs in the phone, the emulator and its options left out."""
    out = []
    for pid in sorted(int(p) for p in os.listdir("/proc") if p.isdigit()):
        try:
            words = open(f"/proc/{pid}/cmdline", "rb").read().decode(errors="replace").split("\0")[:-1]
        except OSError:
            continue
        if pid > 1 and pid != os.getpid() and words:  # no words: a zombie, or the kernel's
            if "-0" in words:
                words = words[words.index("-0") + 2:]
            out.append([pid] + words)
    return out


def kill_named(name):
    """SIGKILL to the processes whose command line contains `name`; how many there were."""
    found = [p[0] for p in processes() if any(name in w for w in p[1:])]
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return len(found)


async def live(listener, control, phone):
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, os._exit, 0)
    loop.add_signal_handler(signal.SIGUSR1, phone.unplug, 2.0)
    loop.add_signal_handler(signal.SIGUSR2, phone.replug)
    await asyncio.start_server(phone.client, sock=listener, limit=adbd.PAYLOAD_MAX)
    await asyncio.start_unix_server(phone.control, sock=control)
    ended = asyncio.Event()
    loop.add_reader(0, lambda: os.read(0, 4096) or ended.set())
    print("fake phone %s:%d" % listener.getsockname(), flush=True)
    await ended.wait()


def init(work):
    """Process 1: runs `work` in a child and reaps whatever is left to it; ends with that child."""
    sandbox.die_with_parent(signal.SIGKILL)
    first = os.fork()
    if first == 0:
        work()
        os._exit(0)
    while True:
        pid, status = os.wait()
        if pid == first:
            os._exit(os.waitstatus_to_exitcode(status) & 255)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--profile", required=True)
    p.add_argument("--state", required=True, help="folder of this phone: its /data, its control socket")
    p.add_argument("--tools", required=True, help="folder of launch, shim.so and vclock.so")
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--data-mb", type=int, help="/data of this size, in memory")
    p.add_argument("--data-noexec", action="store_true", help="/data executes nothing")
    p.add_argument("--fault", action="append", default=[], metavar="NAME=VALUE")
    return p.parse_args()


def bind_all(a):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", a.port))
    listener.listen(16)
    control = socket.socket(socket.AF_UNIX)
    path = os.path.join(a.state, "control")
    if os.path.exists(path):
        os.unlink(path)
    control.bind(path)
    control.listen(4)
    return listener, control


def main():
    a = arguments()
    a.state = os.path.abspath(a.state)
    os.makedirs(a.state, exist_ok=True)
    with open(a.profile) as f:
        profile = json.load(f)
    faults = dict(x.split("=", 1) for x in a.fault)
    listener, control = bind_all(a)
    try:
        sandbox.enter()
    except OSError as e:
        print(f"fake phone: no user namespaces here: {e}", file=sys.stderr)
        return EXIT_UNAVAILABLE

    def work():
        try:
            sandbox.build(a.state, profile, os.path.abspath(a.tools), a.data_mb, a.data_noexec)
        except OSError as e:
            print(f"fake phone: cannot build the sandbox: {e}", file=sys.stderr, flush=True)
            os._exit(EXIT_UNAVAILABLE)
        asyncio.run(live(listener, control, Phone(profile, faults)))

    outer = os.fork()
    if outer == 0:
        init(work)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(outer, signal.SIGKILL))
    return os.waitstatus_to_exitcode(os.waitpid(outer, 0)[1]) & 255


if __name__ == "__main__":
    sys.exit(main())
