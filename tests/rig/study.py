"""study.py - a small super-resolution study as people run it: a config, nas-search, and what its database says."""
import os
import sqlite3
import subprocess

from rig_test import program

CONFIG = """
[study]
name = "{name}"
seed = 7
[task]
scale = 2
out_width = 96
out_height = 80
[data]
leaves_train = 4
leaves_select = 1
leaves_report = 1
leaves_size = 64
[space]
blocks_max = 1
residual = [4, 8, 4]
expand = [8, 16, 8]
project = [4, 8, 4]
head_kernels = [3]
tail_kernels = [3]
skip_kernels = [3]
[eval]
threads = 1
batch = 2
patch = 16
supernet_steps = 6
finetune_steps = 2
finetune_max = {finals}
baseline_steps = 0
[search]
strategy = "nsga2"
trials = {trials}
population = 4
[measure]
min_batches = 6
min_time_ms = 1
max_time_ms = {max_time_ms}
final_max_time_ms = {max_time_ms}
[compile]
cache_dir = "{folder}/cache"
{more}
"""


class Study:
    """A study in `folder` with the text `more` of devices, objectives and whatever else differs from CONFIG."""

    def __init__(self, lab, folder, more, name="rig", trials=6, finals=2, max_time_ms=400):
        self.lab, self.folder, self.name = lab, folder, name
        self.config = f"{folder}/{name}.toml"
        with open(self.config, "w") as f:
            f.write(CONFIG.format(name=name, trials=trials, finals=finals, max_time_ms=max_time_ms, folder=folder,
                                  more=more))

    def arguments(self, *more):
        return [program("nas-search"), "--config", self.config, "--set", f"study.dir={self.folder}/{self.name}", *more]

    def run(self, *more, timeout=300):
        return subprocess.run(self.arguments(*more), env=self.lab.environment, cwd=self.folder, capture_output=True,
                              text=True, errors="backslashreplace", timeout=timeout)

    def start(self, *more):
        log = open(f"{self.folder}/{self.name}.log", "w")
        return subprocess.Popen(self.arguments(*more), env=self.lab.environment, cwd=self.folder, stdout=log,
                                stderr=log, stdin=subprocess.DEVNULL)

    def log(self):
        with open(f"{self.folder}/{self.name}.log") as f:
            return f.read()

    def numbers(self):
        """All that must not depend on when and where a study ran: trials, every latency sample by sample, the front."""
        trials = self.rows("SELECT number, state, point, psnr_y FROM v_trial ORDER BY number")
        latencies = self.rows("SELECT l.trial, l.role, l.queue, l.simulated, m.p50_us, m.p50_lo_us, m.p50_hi_us, m.p10_us,"
                              " m.p90_us, m.min_us, m.mad_us, m.first_us, m.batch_size, m.batches, m.dropped, m.noisy,"
                              " hex(m.samples_us) FROM v_latency l JOIN measurements m ON m.id = l.measurement_id "
                              "ORDER BY 1, 2, 3")
        return trials, latencies, self.rows("SELECT trial FROM v_front ORDER BY trial")

    def rows(self, sql):
        """Rows of the study's database; none while it has no such table yet."""
        folder = f"{self.folder}/{self.name}"
        found = [n for n in os.listdir(folder) if n.endswith(".db")] if os.path.isdir(folder) else []
        if not found:
            return []
        db = sqlite3.connect(f"file:{folder}/{found[0]}?mode=ro", uri=True, timeout=20)
        try:
            return db.execute(sql).fetchall()
        except sqlite3.OperationalError as e:
            if "no such table" in str(e):
                return []
            raise
        finally:
            db.close()
