#!/usr/bin/env python3
"""onnx_check.py - judges exported ONNX files from outside.

    onnx_check.py FOLDER

For every NAME.onnx in FOLDER: onnx.checker with full shape inference, opset 13, IR version 7, every initializer used,
and an evaluation on NAME.in (raw little-endian floats, NCHW) compared with NAME.out (the same, from an independent
forward pass). The evaluation is the definition of each operator in numpy, in double; where the installed onnx has
onnx.reference (1.13 and later), that evaluates the file as well.

Exit code: 0 all files hold, 1 one does not (named on stderr), 77 python modules onnx or numpy are missing.
"""

import glob
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


def apply(node, operands):
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Conv":
        return conv(operands[0], operands[1], operands[2] if len(operands) > 2 else None, attributes)
    if node.op_type == "Relu":
        return np.maximum(operands[0], 0)
    if node.op_type == "PRelu":
        return np.where(operands[0] > 0, operands[0], operands[0] * operands[1])
    if node.op_type == "Add":
        return operands[0] + operands[1]
    if node.op_type == "DepthToSpace":
        return depth_to_space(operands[0], attributes)
    raise ValueError(f"operator {node.op_type} is not expected")


def evaluate(model, x):
    values = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    unused = set(values)
    values[model.graph.input[0].name] = x.astype(np.float64)
    for node in model.graph.node:
        unused -= set(node.input)
        values[node.output[0]] = apply(node, [values[name] for name in node.input])
    if unused:
        raise ValueError(f"initializers that no node uses: {sorted(unused)}")
    return values[model.graph.output[0].name]


def extents(info):
    return [d.dim_value for d in info.type.tensor_type.shape.dim]


def compare(what, got, expected):
    limit = TOLERANCE * max(1.0, float(np.abs(expected).max()))
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
    compare("definition", evaluate(model, x), expected)
    if ReferenceEvaluator is not None:
        compare("onnx.reference", ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})[0], expected)


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
