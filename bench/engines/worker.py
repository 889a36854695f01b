"""worker.py - one engine other than ours with one network in one process; run.py pins it and talks to it.

    worker.py ENGINE NET.onnx THREADS

Reads commands from stdin, one a line, and answers each with one line of JSON:
    run IN OUT      one inference on a raw float file -> {}
    time SECONDS    warm-up, then batches of inferences for so long -> {p50_us, min_us, batches, dropped}
The rule of our own measuring loop (device-agent/protocol.h) holds here too: a sample is a batch of at least 1 ms, and a
batch in which a thread waited for a CPU for over 2 % of the time is dropped, unless all were. The first line, unasked,
is {"version": ...} or {"error": ...}. Inputs and outputs are bound once, so that Python costs microseconds.
"""

import glob
import json
import os
import sys
import time

import numpy as np

WARMUP_RUNS, WARMUP_S, BATCH_NS, WAITED_MAX = 3, 0.05, 1e6, 0.02


def open_onnxruntime(path, threads, optimised=True, exact=False):
    """`exact`: sums of 8-bit products that do not saturate where the CPU lacks VNNI."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.zeros(session.get_inputs()[0].shape, np.float32)
    y = np.zeros(session.get_outputs()[0].shape, np.float32)
    binding = session.io_binding()
    binding.bind_ortvalue_input(session.get_inputs()[0].name, ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output(session.get_outputs()[0].name, "cpu", 0, np.float32, y.shape, y.ctypes.data)
    return ort.__version__, x, lambda: session.run_with_iobinding(binding), lambda: y


def open_onnxruntime_exact(path, threads):
    return open_onnxruntime(path, threads, exact=True)


def open_reference(path, threads):
    """What the file says, operator by operator; a file in 8 bits computes in floats between its pairs."""
    return open_onnxruntime(path, threads, optimised=False)


def open_openvino(path, threads):
    import openvino as ov

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(path, "CPU", settings).create_infer_request()
    x = np.zeros(request.get_input_tensor().shape, np.float32)
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))

    def infer():
        request.infer(None, share_inputs=True, share_outputs=True)

    return ov.__version__, x, infer, lambda: request.get_output_tensor().data


def open_ncnn(path, threads):
    import ncnn
    import ncnn_files

    stem = path.removesuffix(".onnx") + f".ncnn{threads}"
    output = ncnn_files.convert(path, stem)
    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    if net.load_param(stem + ".param") != 0 or net.load_model(stem + ".bin") != 0:
        raise RuntimeError("ncnn cannot load " + stem)
    x = np.zeros(input_shape(path), np.float32)
    mat, last = ncnn.Mat(x[0]), []

    def infer():
        extractor = net.create_extractor()
        extractor.input("input", mat)
        last[:] = extractor.extract(output)[1:]

    return ncnn.__version__, x, infer, lambda: np.array(last[0])


def input_shape(path):
    import onnx

    return [d.dim_value for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]


def waited_ns():
    """Run-queue time of every thread; empty where the kernel does not count it."""
    times = {}
    for name in glob.glob("/proc/self/task/*/schedstat"):
        with open(name, encoding="ascii") as file:
            times[name] = int(file.read().split()[1])
    return times


def batch(infer, count):
    """Time of one inference in us, and whether another process disturbed it."""
    before = waited_ns()
    start = time.perf_counter_ns()
    for _ in range(count):
        infer()
    took = time.perf_counter_ns() - start
    waited = max((after - before.get(name, after) for name, after in waited_ns().items()), default=0)
    return took / count / 1e3, waited > WAITED_MAX * took


def warm_up(infer):
    """Returns the number of inferences of a batch."""
    begin, times = time.perf_counter_ns(), []
    while len(times) < WARMUP_RUNS or time.perf_counter_ns() - begin < WARMUP_S * 1e9:
        start = time.perf_counter_ns()
        infer()
        times.append(time.perf_counter_ns() - start)
    return int(BATCH_NS / min(times)) + 1


def measure(infer, seconds):
    count = warm_up(infer)
    samples, begin = [], time.perf_counter_ns()
    while len(samples) < 3 or time.perf_counter_ns() - begin < seconds * 1e9:
        samples.append(batch(infer, count))
    kept = [us for us, disturbed in samples if not disturbed]
    used = kept or [us for us, _ in samples]
    return {"p50_us": float(np.median(used)), "min_us": min(used), "batches": len(kept),
            "dropped": len(samples) - len(kept)}


def run_file(x, infer, result, source, target):
    x[...] = np.fromfile(source, np.float32).reshape(x.shape)
    infer()
    np.ascontiguousarray(result(), np.float32).tofile(target)
    return {}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print does not mix with the answers

    def answer(document):
        print(json.dumps(document), file=answers, flush=True)

    engine, path, threads = sys.argv[1:4]
    openers = {"onnxruntime": open_onnxruntime, "onnxruntime_exact": open_onnxruntime_exact,
               "reference": open_reference, "openvino": open_openvino, "ncnn": open_ncnn}
    try:
        version, x, infer, result = openers[engine](path, int(threads))
        infer()
    except Exception as error:  # whatever an engine throws becomes an empty cell with this reason
        answer({"error": f"{type(error).__name__}: {error}"})
        return
    answer({"version": version})
    for line in sys.stdin:
        command, *rest = line.split()
        answer(measure(infer, float(rest[0])) if command == "time" else run_file(x, infer, result, *rest))


if __name__ == "__main__":
    main()
