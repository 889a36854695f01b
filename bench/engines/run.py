"""run.py - our compiled networks beside ONNX Runtime, OpenVINO and ncnn: fp32 and int8, batch 1, 1 and 2 threads.

    run.py [--nets A,B:int8] [--int8] [--reduce-range] [--threads 1,2] [--rounds 5] [--seconds 0.3] [--nice N]
           [--nas-compile PROGRAM] [--out FOLDER]

Each engine runs in its own process pinned to the first THREADS CPUs and stopped except in its turn (pools of threads
may spin long after an inference). All engines of a cell take turns, `rounds` times: peak loop for 50 ms, then one
engine for `seconds`. A turn gives the median latency over batches that no other process disturbed (one rule for all,
see worker.py). It is calm when at most 30 % of its batches were disturbed; one that is not is repeated, at most twice. A
cell is the median of its turns, of the calm ones alone where at least 3 are. Share of peak: direct FLOPs of the network
against the peak loop of the same round, so Winograd may exceed 100 %. Outputs of all engines are compared with those of
ONNX Runtime on one random image first. Writes results.md and results.json; the tables also go to stdout.

NAME:int8 is the network in 8 bits, made by quantized.py (--int8: all of --nets; --reduce-range: weights in 7). Our program
of the fp32 network takes turns with the others there. Outputs are compared with what the file says in floats, in steps of
the output: without VNNI, ONNX Runtime and OpenVINO add pairs of products that saturate at 16 bits. onnxruntime_exact is
ONNX Runtime with the setting that avoids this.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import signal
import statistics
import subprocess
import sys

import numpy as np
import onnx

import nets
import quantized
import worker

HERE = os.path.dirname(os.path.abspath(__file__))
RIVALS = ("onnxruntime", "openvino", "ncnn")
RIVALS_INT8 = ("onnxruntime", "onnxruntime_exact", "openvino", "ncnn")
OURS, OURS_FLOAT, OURS_TUNED = "ours", "ours fp32", "ours tuned"
INT8 = ":int8"  # at the end of a name
DROPPED_MAX, CALM_MIN, TRIES = 0.3, 3, 3
ERROR_MAX = 1e-4  # of the largest output; engines sum in other orders, and Winograd rounds more


def pinned(threads, command):
    return ["taskset", "-c", ",".join(map(str, range(threads))), *command]


class Rival:
    """A worker process, stopped while nothing is asked of it."""

    def __init__(self, name, path, threads):
        self.name = name
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        command = pinned(threads, [sys.executable, os.path.join(HERE, "worker.py"), name, path, str(threads)])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, env=environment)
        self.version = self.error = None

    def wait_until_ready(self):
        first = self.answer()
        self.version, self.error = first.get("version"), first.get("error")

    def answer(self):
        line = self.process.stdout.readline()
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(line) if line else {"error": f"{self.name} ended"}

    def ask(self, command):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def run(self, source, target):
        """Why there is no output, else None."""
        return self.ask(f"run {source} {target}").get("error")

    def time(self, seconds):
        return self.ask(f"time {seconds}")

    def close(self):
        self.process.kill()  # also ends a stopped process
        self.process.wait()


class Ours:
    """A program made by nas-compile; every round is a process."""

    def __init__(self, name, compiler, path, threads, folder, further=("--threads", "2")):
        self.name, self.threads, self.version = name, threads, "this tree"
        self.program = os.path.join(folder, "model")
        self.error = self.compile(compiler, path, folder, further)

    def compile(self, compiler, path, folder, further):
        if not os.path.exists(compiler):
            return f"no {compiler}"
        done = subprocess.run([compiler, path, *further, "-o", folder], capture_output=True, text=True)
        return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["failed"])[-1]

    def command(self, *arguments):
        return pinned(self.threads, [self.program, *arguments, "--threads", str(self.threads)])

    def run(self, source, target):
        done = subprocess.run(self.command("--run", source, target), capture_output=True, text=True)
        return None if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"

    def time(self, seconds):
        ms = str(int(seconds * 1000))
        cpus = ",".join(map(str, range(self.threads)))
        done = subprocess.run(self.command("--bench", "--cpus", cpus, "--min-time-ms", ms, "--min-batches", "3",
                                           "--warmup-ms", "50", "--max-time-ms", "5000"),
                              capture_output=True, text=True)
        if done.returncode != 0:
            return {"error": done.stderr.strip()}
        document = json.loads(done.stdout)
        kept = 0 if document["all_disturbed"] else document["batches"]
        return {"p50_us": document["p50_us"], "min_us": document["min_us"], "batches": kept,
                "dropped": document["dropped"]}


def peak_gflops(threads, program):
    done = subprocess.run(pinned(threads, [program, str(threads)]), capture_output=True, text=True, check=True)
    return float(done.stdout)


def outputs(engines, x, folder):
    """Engine -> its output for `x`; engines without one get an error."""
    source = os.path.join(folder, "input.raw")
    x.tofile(source)
    found = {}
    for engine in engines:
        target = os.path.join(folder, engine.name.replace(" ", "_") + ".raw")
        engine.error = engine.run(source, target)
        if not engine.error:
            found[engine.name] = np.fromfile(target, np.float32)
    return found


def compare(engines, path, folder):
    """Largest difference of each engine from ONNX Runtime, relative to the largest output."""
    found = outputs(engines, np.random.default_rng(1).random(worker.input_shape(path), np.float32), folder)
    expected = found[RIVALS[0]]
    scale = np.abs(expected).max()
    return {name: {"max_error": float(np.abs(y - expected).max() / scale) if y.shape == expected.shape else float("inf")}
            for name, y in found.items()}


def off(y, expected, step):
    """Largest difference in steps of the output, and PSNR: range of the expected output to root mean square."""
    if y.shape != expected.shape:
        return {"max_steps": float("inf"), "psnr_db": float("-inf")}
    difference = y.astype(np.float64) - expected
    noise = np.sqrt(np.mean(difference**2))
    psnr = 20 * np.log10(np.ptp(expected) / noise) if noise > 0 else float("inf")
    return {"max_steps": float(np.abs(difference).max() / step), "psnr_db": float(psnr)}


def compare_int8(engines, path, folder):
    """Each engine against the file as it stands: floats between QuantizeLinear and DequantizeLinear."""
    reference = Rival("reference", path, 1)
    try:
        reference.wait_until_ready()
        found = outputs([reference, *engines], quantized.image(worker.input_shape(path), seed=1), folder)
    finally:
        reference.close()
    expected = found.pop("reference")
    step = quantized.output_step(onnx.load(path)) or float(np.ptp(expected)) / 255
    return {name: off(y, expected, step) for name, y in found.items()}


def is_calm(turn):
    return turn["dropped"] <= DROPPED_MAX * (turn["dropped"] + turn["batches"])


def summarise(rounds, gflop):
    """One cell from its rounds."""
    good = [r for r in rounds if "error" not in r]
    if not good:
        return {"error": rounds[0]["error"], "rounds": rounds}
    calm = [r for r in good if is_calm(r)]
    used = calm if len(calm) >= min(CALM_MIN, len(good)) else good
    times = [r["p50_us"] for r in used]
    middle = statistics.median(times)
    return {"ms": middle / 1e3, "min_ms": min(r["min_us"] for r in good) / 1e3,
            "spread": (max(times) - min(times)) / middle, "rounds_used": len(used), "rounds_calm": len(calm),
            "gflops": gflop / middle * 1e6,
            "share": statistics.median(gflop / r["p50_us"] * 1e6 / r["peak_gflops"] for r in used),
            "peak_gflops": statistics.median(r["peak_gflops"] for r in used), "rounds": rounds}


def take_turn(engine, threads, options):
    for _ in range(TRIES):
        peak = peak_gflops(threads, options.peak)
        turn = engine.time(options.seconds) | {"peak_gflops": peak}
        if "error" in turn or is_calm(turn):
            break
    return turn


def take_turns(engines, threads, options):
    rounds = {engine.name: [] for engine in engines}
    for _ in range(options.rounds):
        for engine in engines:
            rounds[engine.name].append(take_turn(engine, threads, options))
    return rounds


def split(net):
    """Name of the fp32 network, and whether it is to run in 8 bits."""
    return net.removesuffix(INT8), net.endswith(INT8)


def net_path(net, options):
    """The file; one in 8 bits is made first, by a process of its own: its threads are not to outlive it."""
    name, is_int8 = split(net)
    path = os.path.join(options.folder, "nets", name + ".onnx")
    if not is_int8:
        return path
    target = os.path.join(options.folder, "nets", f"{name}.int8{'r' if options.reduce_range else ''}.onnx")
    command = [sys.executable, os.path.join(HERE, "quantized.py"), path, target]
    subprocess.run(command + ["--reduce-range"] * options.reduce_range, check=True)
    return target


def our_programs(net, path, threads, options):
    def program(name, of, source, *further):
        folder = os.path.join(options.folder, "ours", of.replace(":", "."))
        return Ours(name, options.nas_compile, source, threads, folder, *further)

    name, is_int8 = split(net)
    programs = [program(OURS, net, path)]
    if is_int8:
        programs.append(program(OURS_FLOAT, name, net_path(name, options)))
    if options.tune:
        tuned = ("--threads", str(threads), "--tune", options.tune, "--db", os.path.join(options.folder, "tuned.db"))
        programs.append(program(OURS_TUNED, f"{net}.tuned{threads}", path, tuned))
    return programs


def run_cell(net, gflop, threads, options):
    """All engines on one network with so many threads: engine -> cell."""
    path, is_int8 = net_path(net, options), split(net)[1]
    with contextlib.ExitStack() as stack:
        engines = our_programs(net, path, threads, options)
        for rival in RIVALS_INT8 if is_int8 else RIVALS:
            engines.append(Rival(rival, path, threads))
            stack.callback(engines[-1].close)
            engines[-1].wait_until_ready()
        found = (compare_int8 if is_int8 else compare)([e for e in engines if not e.error], path, options.folder)
        working = [e for e in engines if not e.error]
        rounds = take_turns(working, threads, options)
    cells = {e.name: {"error": e.error} for e in engines if e.error}
    for engine in working:
        cells[engine.name] = summarise(rounds[engine.name], gflop) | found[engine.name] | {"version": engine.version}
    return cells


def time_of(cell):
    return f"{cell['ms']:.3g}" if "ms" in cell else "-"


def quotient(above, below):
    return f"{above['ms'] / below['ms']:.2f}" if "ms" in above and "ms" in below else "-"


def state(cell):
    """Speed and steadiness of an engine."""
    if "ms" not in cell:
        return ["-"] * 4
    return [f"{cell['gflops']:.0f}", f"{cell['share']:.0%}", f"{cell['spread']:.0%}",
            f"{cell['rounds_calm']}/{len(cell['rounds'])}"]


def errors_of(cells):
    wrong = [f"{n} {c['max_error']:.0e}" for n, c in cells.items() if c.get("max_error", 0) > ERROR_MAX]
    return ", ".join(wrong) or f"<= {max(c.get('max_error', 0) for c in cells.values()):.0e}"


def steps_of(cells):
    """Of every engine that has an output: steps (PSNR)."""
    known = ((n, cells[n]) for n in (OURS, OURS_FLOAT, *RIVALS_INT8) if "max_steps" in cells[n])
    return ", ".join(f"{n} {c['max_steps']:.3g} ({c['psnr_db']:.0f})" for n, c in known)


def row(net, threads, cells):
    """A line of the table."""
    is_int8 = split(net)[1]
    names = RIVALS_INT8 if is_int8 else RIVALS
    timed = [n for n in names if "ms" in cells[n]]
    best = min(timed, key=lambda n: cells[n]["ms"]) if timed else "-"
    ours, rival = cells[OURS], cells.get(best, {})
    text = [split(net)[0], str(threads), *(time_of(cells[n]) for n in (OURS, *names)), best, quotient(rival, ours)]
    if is_int8:
        text += [time_of(cells[OURS_FLOAT]), quotient(cells[OURS_FLOAT], ours)]
    text += [*state(ours if "ms" in ours else rival), steps_of(cells) if is_int8 else errors_of(cells)]
    if OURS_TUNED in cells:
        tuned = cells[OURS_TUNED]
        text += [time_of(tuned), quotient(ours, tuned), quotient(rival, tuned)]
    return "| " + " | ".join(text) + " |"


HEAD = ("| network | threads | ours ms | onnxruntime ms | openvino ms | ncnn ms | best rival | ratio | GFLOP/s "
        "| share of peak | spread | calm | outputs differ |\n|" + "---|" * 13)
NOTE = ("ratio: best rival / ours, above 1 we are faster. GFLOP/s, share of peak (direct FLOPs) and spread of the rounds "
        "(max - min, of the median) are of ours, of the best rival where ours is empty; calm: its rounds with at most 30 % of "
        "the batches disturbed by other processes. outputs differ: from ONNX "
        "Runtime, largest difference of any engine relative to the largest output; engines beyond "
        f"{ERROR_MAX:g} are named.")


HEAD_INT8 = ("| network, int8 | threads | ours ms | onnxruntime ms | onnxruntime_exact ms | openvino ms | ncnn ms | best rival "
             "| ratio | ours fp32 ms | fp32/int8 | GOP/s | share of fp32 peak | spread | calm | steps off (PSNR dB) |\n|"
             + "---|" * 16)
NOTE_INT8 = ("int8: one file for all, from onnxruntime's quantizer (uint8 activations, int8 weights by channel); in ncnn "
             "the weights of that file with its own symmetric activations. onnxruntime_exact: session.x64quantprecision=1, "
             "sums that do not saturate. fp32/int8: our program of the fp32 network in the same rounds / ours, above 1 the "
             "integers are faster. steps off: largest difference, in steps of the output, from the file computed in floats, "
             "and PSNR; ours fp32 shows what quantizing costs. FSRCNN ends in a convolution and DepthToSpace in "
             "place of the transposed convolution.")


HEAD_TUNED = " ours tuned ms | ours/tuned | ratio tuned |"
NOTE_TUNED = "ours tuned: kernels chosen by nas-compile --tune {}; ratio tuned: best rival / ours tuned."


def table(cells, head, note, tune):
    if tune:
        head = "\n".join(line + more for line, more in zip(head.split("\n"), (HEAD_TUNED, "---|" * 3)))
        note += " " + NOTE_TUNED.format(tune)
    return ["", head, *(row(c["net"], c["threads"], c["engines"]) for c in cells), "", note] if cells else []


def report(results, options):
    cells = results["cells"]
    lines = [f"{results['cpu']}, {results['date']}, load {results['load_before']} to {results['load_after']}; "
             f"{options.rounds} rounds of {options.seconds} s{'; int8: weights of 7 bits' * options.reduce_range}"]
    lines += table([c for c in cells if not split(c["net"])[1]], HEAD, NOTE, options.tune)
    lines += table([c for c in cells if split(c["net"])[1]], HEAD_INT8, NOTE_INT8, options.tune)
    reasons = {f"{n}, {c['net']}: {e['error']}" for c in cells for n, e in c["engines"].items() if "error" in e}
    versions = {f"{n} {e['version']}" for c in cells for n, e in c["engines"].items() if "version" in e}
    lines += ["", "Versions: " + ", ".join(sorted(versions)) + "."]
    lines += ["", "Empty cells:", "", *(f"- {reason}" for reason in sorted(reasons))] if reasons else []
    return "\n".join(lines) + "\n"


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()


def set_priority(nice):
    """Priority of everything started from here; the session's autogroup as well, where this process leads it."""
    os.nice(nice - os.nice(0))
    if os.getsid(0) == os.getpid() and os.path.exists("/proc/self/autogroup"):
        with open("/proc/self/autogroup", "w", encoding="ascii") as file:
            file.write(str(nice))


def parse_arguments():
    parser = argparse.ArgumentParser(description="our programs beside other engines")
    parser.add_argument("--nets", default=",".join(nets.NETS), help="names, with :int8 behind for 8 bits")
    parser.add_argument("--int8", action="store_true", help="all of them in 8 bits")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--nice", type=int, default=0, help="priority, for a machine that others use; start with setsid")
    parser.add_argument("--tune", help="also our program with --tune TIME, say 60s, for each number of threads")
    parser.add_argument("--nas-compile", default="build/release/bin/nas-compile")
    parser.add_argument("--folder", default="build/engines", help="networks, programs, peak loop")
    parser.add_argument("--out", default="build/engines", help="folder of results.md and results.json")
    parser.add_argument("--reduce-range", action="store_true", help="weights of 7 bits, whose sums saturate nowhere")
    options = parser.parse_args()
    options.nets = options.nets.split(",")
    if options.int8:
        options.nets = [split(net)[0] + INT8 for net in options.nets]
    options.peak = os.path.join(options.folder, "peak")
    return options


def write(results, options):
    with open(os.path.join(options.out, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    with open(os.path.join(options.out, "results.md"), "w", encoding="utf-8") as file:
        file.write(report(results, options))


def main():
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("cut off"))  # so that stopped engines are ended, see run_cell
    os.makedirs(options.out, exist_ok=True)
    if options.nice:
        set_priority(options.nice)
    with open(os.path.join(options.folder, "nets", "nets.json"), encoding="utf-8") as file:
        entries = json.load(file)
    results = {"cpu": cpu_name(), "date": datetime.date.today().isoformat(),
               "load_before": os.getloadavg()[0], "load_after": 0.0, "cells": []}
    for net in options.nets:
        gflop = entries[split(net)[0]]["gflop"]
        for threads in map(int, options.threads.split(",")):
            cells = run_cell(net, gflop, threads, options)
            results["cells"].append({"net": net, "threads": threads, "gflop": gflop, "engines": cells})
            print(row(net, threads, cells), file=sys.stderr, flush=True)
            results["load_after"] = os.getloadavg()[0]
            write(results, options)  # after every cell: a long run that is cut off keeps what it has
    print(report(results, options), end="")


if __name__ == "__main__":
    main()
