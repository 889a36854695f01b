"""agent_client.py - a second implementation of device-agent/protocol.h: signed requests, checked answers, deploying.

Written from the header, not from the C code, so that an error of one side shows as a refusal of the other."""
import hashlib
import hmac
import http.client
import json
import os
import subprocess
import time

from rig_test import agent, program

PHONE_ARCH = {"aarch64": "aarch64", "arm": "armv7", "riscv64": "riscv64", "x86_64": "x86_64"}
HOME = "/data/local/tmp/nas-test"  # each agent has a folder of its name in it


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Forged(Exception):
    """An answer without the right signature."""


class Agent:
    def __init__(self, port, key, timeout=30):
        self.key, self.counter, self.session = key, 0, None
        self.link = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self.link.request("GET", "/v1/nonce")
        self.nonce = json.loads(self.link.getresponse().read())["nonce"]

    def mac(self, text):
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()

    def call(self, method, target, body=b""):
        """(status, document); raises Forged."""
        self.counter += 1
        mac = self.mac(f"{method}\n{target}\n{sha256(body)}\n{self.nonce}\n{self.counter}")
        self.link.request(method, target, body, {"X-Nas-Counter": str(self.counter), "X-Nas-Mac": mac,
                                                 "Content-Length": str(len(body))})
        answer = self.link.getresponse()
        data = answer.read()
        wanted = self.mac(f"{mac}\n{answer.status}\n{sha256(data)}")
        if not hmac.compare_digest(answer.headers.get("X-Nas-Mac", ""), wanted):
            raise Forged(f"{method} {target}: status {answer.status}, signature wrong: {data[:200]}")
        return answer.status, json.loads(data)

    def put(self, data):
        return self.call("PUT", f"/v1/blob/{sha256(data)}", data)

    def start(self, data, deadline_ms=5000, **options):
        """Uploads and starts; the run's number."""
        status, answer = self.put(data)
        if status not in (200, 201):
            raise RuntimeError(f"upload: {status} {answer}")
        text = "".join(f"&{k.replace('_', '-')}={v}" for k, v in options.items())
        status, answer = self.call("POST", f"/v1/run?blob={sha256(data)}&deadline_ms={deadline_ms}{text}")
        if status != 202:
            raise RuntimeError(f"run: {status} {answer}")
        return answer["id"]

    def result(self, number, seconds=60):
        end = time.monotonic() + seconds
        while True:
            status, run = self.call("GET", f"/v1/run/{number}?wait_ms=1000")
            if status != 200:
                raise RuntimeError(f"result: {status} {run}")
            if run["state"] != "running" or time.monotonic() > end:
                return run

    def run(self, data, **options):
        return self.result(self.start(data, **options))


def deploy(lab, phone, folder, name="nas-test-agent"):
    """Pushes an agent with a fresh key and starts it detached, as a controller does; (port, key)."""
    key_file = f"{folder}/key-{os.urandom(4).hex()}"
    subprocess.run([program("nas-agent"), "keygen", key_file], check=True, capture_output=True)
    adb = lambda *words: lab.adb("-s", phone.serial, *words)
    home = f"{HOME}/{name}"
    adb("shell", f"mkdir -p {home}; chmod 700 {HOME}")
    adb("push", agent(PHONE_ARCH[phone.profile["arch"]]), f"{home}/nas-agent")
    adb("push", key_file, f"{home}/key")
    adb("shell", f"chmod 700 {home}/nas-agent; chmod 600 {home}/key; {home}/nas-agent serve --detach --listen @{name} "
        f"--key-file {home}/key --cache-dir {home}/cache --log-file {home}/log --state-file {home}/state")
    with open(key_file) as f:
        key = bytes.fromhex(f.read().strip())
    return int(adb("forward", "tcp:0", "localabstract:" + name).stdout), key
