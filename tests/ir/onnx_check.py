#!/usr/bin/env python3
"""onnx_check.py - judges exported ONNX files from outside.

    onnx_check.py FOLDER

For every NAME.onnx in FOLDER: onnx.checker with full shape inference, opset 13, IR version 7, every initializer used,
and an evaluation on NAME.in (raw little-endian floats, NCHW) compared with NAME.out (the same, from an independent
forward pass). The evaluation is the definition of each operator in numpy, in double; where the installed onnx has
onnx.reference (1.13 and later), that evaluates the file as well. A file whose output comes from DequantizeLinear has an
integer program's answer in NAME.out, and may be STEPS of that output's scale away from it.

Exit code: 0 all files hold, 1 one does not (named on stderr), 77 python modules onnx or numpy are missing.
"""

import glob
import math
import os
import sys

try:
    import numpy as np
    import onnx
    import onnx.checker
    import onnx.numpy_helper
    import onnx.shape_inference
except ImportError as missing:
    print(f"skipped: {missing}", file=sys.stderr)
    sys.exit(77)

try:
    from onnx.reference import ReferenceEvaluator
except ImportError:
    ReferenceEvaluator = None

# Both sides round to float at least once, and onnx.reference sums in float: a few hundred terms of 2^-24 each.
TOLERANCE = 2e-5

# Integer kernels round to the neighbouring code now and then where floats do not, and later layers mix such differences.
# At most 2 steps were seen.
STEPS = 4

# onnx.reference (read in 1.23) mixes the statistics of the data into BatchNormalization before opset 14, and LRN loops
# over the batch where it means the channels: those two are judged by definition only.
NOT_BY_REFERENCE = {"BatchNormalization", "LRN"}


def conv(x, weight, bias, attributes):
    """ONNX Conv, 2-D: one shifted product per kernel tap and group."""
    stride_h, stride_w = attributes["strides"]
    dilation_h, dilation_w = attributes["dilations"]
    top, left, bottom, right = attributes["pads"]
    groups = attributes["group"]
    out_channels, per_group, kernel_h, kernel_w = weight.shape
    if attributes["kernel_shape"] != [kernel_h, kernel_w] or per_group * groups != x.shape[1]:
        raise ValueError("kernel_shape or group disagrees with the weight")
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    rows = (x.shape[2] - dilation_h * (kernel_h - 1) - 1) // stride_h + 1
    columns = (x.shape[3] - dilation_w * (kernel_w - 1) - 1) // stride_w + 1
    y = np.zeros((x.shape[0], out_channels, rows, columns))
    share = out_channels // groups
    for group in range(groups):
        w = weight[group * share:(group + 1) * share]
        source = x[:, group * per_group:(group + 1) * per_group]
        for i in range(kernel_h):
            for j in range(kernel_w):
                h, v = i * dilation_h, j * dilation_w
                taps = source[:, :, h:h + (rows - 1) * stride_h + 1:stride_h,
                              v:v + (columns - 1) * stride_w + 1:stride_w]
                y[:, group * share:(group + 1) * share] += np.einsum("nchw,oc->nohw", taps, w[:, :, i, j])
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def depth_to_space(x, attributes):
    """ONNX DepthToSpace, mode CRD."""
    if attributes["mode"] != b"CRD":
        raise ValueError("mode is not CRD")
    r = attributes["blocksize"]
    n, c, h, w = x.shape
    x = x.reshape(n, c // (r * r), r, r, h, w)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(n, c // (r * r), h * r, w * r)


def conv_transpose(x, weight, bias, attributes):
    """ONNX ConvTranspose, 2-D, one group: every input pixel adds its taps to the output."""
    stride_h, stride_w = attributes["strides"]
    dilation_h, dilation_w = attributes["dilations"]
    top, left, bottom, right = attributes["pads"]
    extra_h, extra_w = attributes["output_padding"]
    channels, outputs, kernel_h, kernel_w = weight.shape
    if attributes["kernel_shape"] != [kernel_h, kernel_w] or attributes["group"] != 1 or channels != x.shape[1]:
        raise ValueError("kernel_shape or group disagrees with the weight")
    n, _, h, w = x.shape
    rows = (h - 1) * stride_h + dilation_h * (kernel_h - 1) + 1 + extra_h
    columns = (w - 1) * stride_w + dilation_w * (kernel_w - 1) + 1 + extra_w
    y = np.zeros((n, outputs, rows, columns))
    for i in range(kernel_h):
        for j in range(kernel_w):
            u, v = i * dilation_h, j * dilation_w
            y[:, :, u:u + (h - 1) * stride_h + 1:stride_h, v:v + (w - 1) * stride_w + 1:stride_w] += np.einsum(
                "nchw,co->nohw", x, weight[:, :, i, j])
    y = y[:, :, top:rows - bottom, left:columns - right]
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def pool(x, attributes, average):
    """ONNX MaxPool and AveragePool, 2-D."""
    stride_h, stride_w = attributes["strides"]
    top, left, bottom, right = attributes["pads"]
    kernel_h, kernel_w = attributes["kernel_shape"]
    border = ((0, 0), (0, 0), (top, bottom), (left, right))
    counted = np.pad(np.ones_like(x), border, constant_values=attributes.get("count_include_pad", 0))
    x = np.pad(x, border, constant_values=0 if average else -np.inf)
    rows = (x.shape[2] - kernel_h) // stride_h + 1
    columns = (x.shape[3] - kernel_w) // stride_w + 1
    y = np.zeros(x.shape[:2] + (rows, columns))
    for i in range(rows):
        for j in range(columns):
            h, w = slice(i * stride_h, i * stride_h + kernel_h), slice(j * stride_w, j * stride_w + kernel_w)
            taps = x[:, :, h, w]
            y[:, :, i, j] = taps.sum((2, 3)) / counted[:, :, h, w].sum((2, 3)) if average else taps.max((2, 3))
    return y


def resize(x, sizes, attributes):
    """ONNX Resize over height and width, one axis after the other (both modes are separable)."""
    for axis in (2, 3):
        n_in, n_out = x.shape[axis], int(sizes[axis])
        i = np.arange(n_out, dtype=np.float64)
        at = {"asymmetric": i * n_in / n_out, "half_pixel": (i + 0.5) * n_in / n_out - 0.5,
              "align_corners": i * (n_in - 1) / max(n_out - 1, 1)
              }[attributes["coordinate_transformation_mode"].decode()]
        if attributes["mode"] == b"nearest":
            near = np.floor(at) if attributes["nearest_mode"] == b"floor" else np.ceil(at - 0.5)
            x = np.take(x, np.clip(near, 0, n_in - 1).astype(int), axis)
            continue
        at = np.clip(at, 0, n_in - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if k == axis else 1 for k in range(4)])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, np.minimum(low + 1, n_in - 1), axis) * share
    return x


def batch_normalization(x, scale, bias, mean, variance, epsilon):
    scale, bias, mean, variance = (v.reshape(1, -1, 1, 1) for v in (scale, bias, mean, variance))
    return scale * (x - mean) / np.sqrt(variance + epsilon) + bias


def lrn(x, attributes):
    size, y = attributes["size"], np.zeros_like(x)
    for c in range(x.shape[1]):
        window = x[:, max(0, c - (size - 1) // 2):c + size // 2 + 1]
        base = attributes["bias"] + attributes["alpha"] / size * (window ** 2).sum(1)
        y[:, c] = x[:, c] / base ** attributes["beta"]
    return y


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def pad(x, pads, fill):
    pads = [int(p) for p in pads]
    return np.pad(x, list(zip(pads[:x.ndim], pads[x.ndim:])), constant_values=float(fill))


def along(parameter, rank, axis):
    """A scale or zero point as it broadcasts: one number, or one an element of `axis`."""
    return parameter.reshape([-1 if k == axis else 1 for k in range(rank)]) if parameter.ndim == 1 else parameter


def quantize(x, scale, zero):
    kind = np.iinfo(zero.dtype)
    return np.clip(np.rint(x / scale) + zero, kind.min, kind.max).astype(zero.dtype)


def dequantize(codes, scale, zero, attributes):
    axis = attributes.get("axis", 1)
    codes = codes.astype(np.float64)
    if zero is not None:
        codes = codes - along(zero.astype(np.float64), codes.ndim, axis)
    return codes * along(scale, codes.ndim, axis)


ELEMENTWISE = {
    "Relu": lambda x: np.maximum(x, 0), "PRelu": lambda x, slope: np.where(x > 0, x, x * slope),
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Clip": np.clip,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)), "Tanh": np.tanh, "Erf": np.vectorize(math.erf), "Exp": np.exp,
    "Sqrt": np.sqrt, "Neg": np.negative, "Abs": np.abs, "MatMul": np.matmul,
}


def apply(node, operands):
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    x = operands[0]
    op = node.op_type
    if op in ELEMENTWISE:
        return ELEMENTWISE[op](*operands)
    if op in ("Conv", "ConvTranspose"):
        function = conv if op == "Conv" else conv_transpose
        return function(x, operands[1], operands[2] if len(operands) > 2 else None, attributes)
    if op in ("MaxPool", "AveragePool"):
        return pool(x, attributes, op == "AveragePool")
    if op == "DepthToSpace":
        return depth_to_space(x, attributes)
    if op == "BatchNormalization":
        return batch_normalization(*operands, attributes["epsilon"])
    if op == "LeakyRelu":
        return np.where(x > 0, x, x * attributes["alpha"])
    if op == "HardSigmoid":
        return np.clip(attributes["alpha"] * x + attributes["beta"], 0, 1)
    if op == "ReduceMean":
        return x.mean(tuple(attributes["axes"]), keepdims=attributes["keepdims"] == 1)
    if op == "Softmax":
        return softmax(x, attributes["axis"])
    if op == "LRN":
        return lrn(x, attributes)
    if op == "Concat":
        return np.concatenate(operands, attributes["axis"])
    if op == "Slice":
        return x[tuple(slice(int(a), int(b)) for a, b in zip(operands[1], operands[2]))]
    if op == "Pad":
        return pad(*operands)
    if op == "Resize":
        return resize(x, operands[3], attributes)
    if op == "Reshape":
        return x.reshape([int(e) for e in operands[1]])
    if op == "QuantizeLinear":
        return quantize(*operands)
    if op == "DequantizeLinear":
        return dequantize(x, operands[1], operands[2] if len(operands) > 2 else None, attributes)
    if op == "Transpose":
        return x.transpose(attributes["perm"])
    raise ValueError(f"operator {op} is not expected")


def evaluate(model, x):
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    codes = (np.int8, np.uint8, np.int32)
    values = {name: v if v.dtype in codes else v.astype(np.float64) for name, v in values.items()}
    unused = set(values)
    values[model.graph.input[0].name] = x.astype(np.float64)
    for node in model.graph.node:
        unused -= set(node.input)
        values[node.output[0]] = apply(node, [values.get(name) for name in node.input])  # "": left out
    if unused:
        raise ValueError(f"initializers that no node uses: {sorted(unused)}")
    return values[model.graph.output[0].name]


def extents(info):
    return [d.dim_value for d in info.type.tensor_type.shape.dim]


def output_step(model):
    """Scale of the output where it is stored as integers, else 0."""
    last = next(n for n in model.graph.node if model.graph.output[0].name in n.output)
    if last.op_type != "DequantizeLinear":
        return 0.0
    return float(next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == last.input[1]))


def known_to_reference(model):
    """onnx.reference (read in 1.23) has both operators from opset 19 on; all that occur beside them mean the same."""
    if output_step(model) > 0:
        model.opset_import[0].version = 19
        model.ir_version = 9
    return model


def compare(what, got, expected, step):
    limit = TOLERANCE * max(1.0, float(np.abs(expected).max())) + STEPS * step
    difference = float(np.abs(got - expected).max())
    if got.shape != expected.shape or not difference <= limit:
        raise ValueError(f"{what}: shape {got.shape}, largest difference {difference:g}, limit {limit:g}")


def check(path):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    if model.ir_version != 7 or [(o.domain, o.version) for o in model.opset_import] != [("", 13)]:
        raise ValueError("not IR version 7 with opset 13")
    stem = path[:-len(".onnx")]
    shape = extents(model.graph.input[0])
    x = np.fromfile(stem + ".in", dtype="<f4").reshape(shape)
    expected = np.fromfile(stem + ".out", dtype="<f4").reshape(extents(model.graph.output[0]))
    step = output_step(model)
    compare("definition", evaluate(model, x), expected, step)
    if ReferenceEvaluator is not None and not NOT_BY_REFERENCE & {node.op_type for node in model.graph.node}:
        reference = ReferenceEvaluator(known_to_reference(model))
        compare("onnx.reference", reference.run(None, {model.graph.input[0].name: x})[0], expected, step)


def main():
    paths = sorted(glob.glob(os.path.join(sys.argv[1], "*.onnx")))
    failures = 0 if paths else 1
    for path in paths:
        try:
            check(path)
        except Exception as error:  # any exception is a verdict on the file
            print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
            failures += 1
    with_reference = "and onnx.reference" if ReferenceEvaluator is not None else "(no onnx.reference here)"
    print(f"onnx {onnx.__version__}: {len(paths)} files, {failures} failures, by definition {with_reference}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
