"""nas-compile --break-even on a phone: one-layer programs in floats and integers, dense and sparse by turns, kept as cells."""
import json
import os
import shutil
import sqlite3
import subprocess
import unittest

from agent_client import deploy
from rig_test import LabTest, agent, program

CELL_S = 0.02


class BreakEven(LabTest):
    profiles = ("virtual_little",)

    @classmethod
    def setUpClass(cls):
        if shutil.which("aarch64-linux-gnu-gcc") is None:
            raise unittest.SkipTest("aarch64-linux-gnu-gcc is not installed (apt-get install gcc-aarch64-linux-gnu)")
        agent()
        super().setUpClass()

    def break_even(self, folder, *words):
        """Of one small layer; rows of the result."""
        done = subprocess.run([program("nas-compile"), "--break-even", "--cell", f"{CELL_S}s", "--shapes",
                               "1:16:16:12", "--patterns", "1x4", "--db", f"{folder}/cells.db", "--cache",
                               f"{folder}/cache", "-f", "json", *words],
                              env={**self.lab.environment, "NAS_AGENTS_DIR": os.path.dirname(agent())}, cwd=folder,
                              capture_output=True, text=True, timeout=200)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def check(self, rows, dtypes, rates):
        self.assertEqual([(r["dtype"], r["rate"]) for r in rows], [(d, r) for d in dtypes for r in rates])
        for row in rows:
            self.assertGreater(min(row["dense_us"], row["sparse_us"]), 0)
            self.assertAlmostEqual(row["speedup"], row["dense_us"] / row["sparse_us"], places=3)

    def test_floats_and_integers_are_timed_on_the_phone_and_kept(self):
        folder = self.folder()
        rows = self.break_even(folder, "--target", "adb:" + self.phones[0].serial, "--dtype", "f32,int8", "--rates",
                               "0.5,0.75")
        self.check(rows, ("f32", "int8"), (0.5, 0.75))
        with sqlite3.connect(f"{folder}/cells.db") as db:
            kept = db.execute("SELECT bits, rate, dense_ns, sparse_ns, target FROM sparse_cells").fetchall()
        self.assertEqual(sorted(k[:2] for k in kept), [(8, 0.5), (8, 0.75), (32, 0.5), (32, 0.75)])
        self.assertEqual({k[4] for k in kept}, {"aarch64-linux"})
        for row in rows:
            times = [k[2:4] for k in kept if k[:2] == (32 if row["dtype"] == "f32" else 8, row["rate"])]
            self.assertAlmostEqual(times[0][0] * 1e-3, row["dense_us"], delta=0.01)
            self.assertAlmostEqual(times[0][1] * 1e-3, row["sparse_us"], delta=0.01)

    def test_an_agent_at_an_address_does_it_too(self):
        folder = self.folder()
        port, key = deploy(self.lab, self.phones[0], folder, "break-even")
        with open(f"{folder}/agent.key", "w", encoding="ascii") as file:
            file.write(key.hex() + "\n")
        os.chmod(f"{folder}/agent.key", 0o600)
        rows = self.break_even(folder, "--target", f"http://127.0.0.1:{port}", "--key", f"{folder}/agent.key", "--dtype",
                               "int8", "--rates", "0.5")
        self.check(rows, ("int8",), (0.5,))


if __name__ == "__main__":
    unittest.main()
