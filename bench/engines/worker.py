"""worker.py - one rival engine with one network in one process; run.py pins it and talks to it.

    worker.py ENGINE NET.onnx THREADS

Reads commands from stdin, one a line, and answers each with one line of JSON:
    run IN OUT      one inference on a raw float file -> {}
    time SECONDS    warm-up, then inferences for so long -> {p50_us, min_us, count, waited}
`waited` is the time the threads were runnable but not running, as a share of the wall time. The first line, unasked, is
{"version": ...} or {"error": ...}. Inputs and outputs are bound once, so that Python costs microseconds.
"""

import glob
import json
import os
import sys
import time

import numpy as np

WARMUP_RUNS, WARMUP_S = 3, 0.05


def open_onnxruntime(path, threads):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.zeros(session.get_inputs()[0].shape, np.float32)
    y = np.zeros(session.get_outputs()[0].shape, np.float32)
    binding = session.io_binding()
    binding.bind_ortvalue_input(session.get_inputs()[0].name, ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output(session.get_outputs()[0].name, "cpu", 0, np.float32, y.shape, y.ctypes.data)
    return ort.__version__, x, lambda: session.run_with_iobinding(binding), lambda: y


def open_openvino(path, threads):
    import openvino as ov

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(path, "CPU", settings).create_infer_request()
    x = np.zeros(request.get_input_tensor().shape, np.float32)
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))

    def infer():
        request.start_async()
        request.wait()

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
    """Run-queue time of all threads; 0 where the kernel does not count it."""
    total = 0
    for name in glob.glob("/proc/self/task/*/schedstat"):
        with open(name, encoding="ascii") as file:
            total += int(file.read().split()[1])
    return total


def measure(infer, seconds):
    warm_until = time.perf_counter() + WARMUP_S
    for i in range(1_000_000):
        if i >= WARMUP_RUNS and time.perf_counter() > warm_until:
            break
        infer()
    samples, before = [], waited_ns()
    begin = time.perf_counter_ns()
    while len(samples) < 3 or time.perf_counter_ns() - begin < seconds * 1e9:
        start = time.perf_counter_ns()
        infer()
        samples.append(time.perf_counter_ns() - start)
    waited = (waited_ns() - before) / (time.perf_counter_ns() - begin)
    return {"p50_us": float(np.median(samples)) / 1e3, "min_us": min(samples) / 1e3, "count": len(samples),
            "waited": waited}


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
    openers = {"onnxruntime": open_onnxruntime, "openvino": open_openvino, "ncnn": open_ncnn}
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
