#!/usr/bin/env python3
"""overhead.py - what the device link costs, printed, not judged: round trips to an agent on loopback and through adb to
a fake phone, pushes of 1 MB, size and memory of the agent. Run it with tests/rig/overhead.py after `make all agents rig`
on a machine that is otherwise idle."""
import os
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lab as rig  # noqa: E402
from agent_client import Agent, deploy  # noqa: E402
from rig_test import agent  # noqa: E402

ROUNDS = 200


def quantiles(values):
    values = sorted(values)
    return f"median {statistics.median(values):7.2f}  p90 {values[len(values) * 9 // 10]:7.2f}  max {values[-1]:7.2f}"


def times_ms(count, work):
    out = []
    for i in range(count):
        began = time.perf_counter()
        work(i)
        out.append(1000 * (time.perf_counter() - began))
    return out


def loopback(folder):
    key = f"{folder}/key"
    subprocess.run([agent("x86_64"), "keygen", key], check=True, capture_output=True)
    process = subprocess.Popen([agent("x86_64"), "serve", "--listen", "127.0.0.1:0", "--key-file", key, "--cache-dir",
                                f"{folder}/cache"], stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline().split("127.0.0.1:")[1].split()[0])
    try:
        link = Agent(port, bytes.fromhex(open(key).read().strip()))
        print("agent on loopback, GET blob, ms:      ",
              quantiles(times_ms(ROUNDS, lambda i: link.call("GET", f"/v1/blob/{i:064x}"))))
        print("agent on loopback, GET info, ms:      ", quantiles(times_ms(50, lambda i: link.call("GET", "/v1/info"))))
        rss = [x for x in open(f"/proc/{process.pid}/status") if x.startswith("VmRSS")][0].split()[1]
        print(f"agent idle, resident memory:            {int(rss)} KiB")
    finally:
        process.kill()
        process.wait()


def through_adb(lab, name, folder):
    phone = lab.phone(name)
    link = Agent(*deploy(lab, phone, folder))
    print(f"{name}: agent through adb, ms:".ljust(40), quantiles(times_ms(50, lambda i: link.call("GET", f"/v1/blob/{i:064x}"))))
    blobs = [os.urandom(1 << 20) for _ in range(10)]
    print(f"{name}: 1 MiB to the agent, ms:".ljust(40), quantiles(times_ms(10, lambda i: link.put(blobs[i]))))
    path = f"{folder}/blob"
    with open(path, "wb") as f:
        f.write(blobs[0])
    push = lambda i: lab.adb("-s", phone.serial, "push", path, "/data/local/tmp/blob")
    print(f"{name}: adb push of 1 MiB, ms:".ljust(40), quantiles(times_ms(10, push)), "(the adb program included)")
    shell = lambda i: lab.adb("-s", phone.serial, "shell", "true")
    print(f"{name}: adb shell true, ms:".ljust(40), quantiles(times_ms(20, shell)), "(the adb program included)")


def main():
    with tempfile.TemporaryDirectory() as folder:
        for arch in ("aarch64", "armv7", "riscv64", "x86_64"):
            print(f"nas-agent-{arch}:".ljust(40), os.path.getsize(agent(arch)), "bytes")
        with rig.Lab() as lab:
            loopback(folder)
            through_adb(lab, "x86_64", folder)
            through_adb(lab, "big_little", folder)


if __name__ == "__main__":
    main()
