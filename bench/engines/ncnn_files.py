"""ncnn_files.py - the ONNX files of nets.py as ncnn .param and .bin files (format 7767517).

Covers the operators of nets.py alone. Activations right after a convolution are fused into it, as ncnn's own optimiser
does; values with several readers get a Split. Every output is compared with ONNX Runtime before anything is timed.

A file of quantized.py becomes what ncnn's own quantizer writes: the same weight codes; activations symmetric in int8 with
the larger end of the range in the file as 127 (ncnn has no zero points); results go to the next convolution as int8
where all readers are convolutions, else as floats.
"""

import struct

import numpy as np
import onnx
from onnx import helper, numpy_helper

ACTIVATION_RELU, ACTIVATION_CLIP = 1, 3
TAG_FLOAT, TAG_INT8 = 0, 0x000D4B38
INT8, INT8_RESULT = 1, 101  # int8_scale_term
CONVOLUTIONS = ("Conv", "ConvTranspose")


class Plain:
    """A QDQ graph without its pairs: nodes and float weights as in a plain file, and what the pairs said."""

    def __init__(self, graph):
        self.nodes, self.alias = [], {}
        self.weights = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
        self.codes = {}  # weight -> int8 codes and their scales
        self.ranges = {}  # value -> smallest, largest
        for node in graph.node:
            if node.op_type == "QuantizeLinear":
                self.declare(node)
            elif node.op_type != "DequantizeLinear":
                copy = onnx.NodeProto()
                copy.CopyFrom(node)
                copy.input[:] = [self.alias.get(name, name) for name in node.input]
                self.nodes.append(copy)
            elif node.input[0] in self.weights:
                self.dequantize(node)
            else:
                self.alias[node.output[0]] = self.alias[node.input[0]]
        self.output = self.alias.get(graph.output[0].name, graph.output[0].name)

    def declare(self, node):
        value = self.alias.get(node.input[0], node.input[0])
        scale, zero = (self.weights[name] for name in node.input[1:])
        limits = np.iinfo(zero.dtype)
        self.alias[node.output[0]] = value
        self.ranges[value] = tuple(float((end - int(zero)) * scale) for end in (limits.min, limits.max))

    def dequantize(self, node):
        codes, scale = (self.weights[name] for name in node.input[:2])
        self.weights[node.output[0]] = (codes * scale.reshape(-1, *[1] * (codes.ndim - 1))).astype(np.float32)
        if codes.dtype == np.int8:
            self.codes[node.output[0]] = codes, np.broadcast_to(scale.reshape(-1), codes.shape[:1])

    def scale(self, value):
        """Codes of a unit: 127 stands for the larger end."""
        return 127 / max(map(abs, self.ranges[value]))


class Writer:
    """State of one conversion: layers as text, weights as bytes."""

    def __init__(self, model):
        self.plain = Plain(model.graph)
        self.weights = self.plain.weights
        self.lines, self.blob = [], bytearray()
        self.readers = {}
        for node in self.plain.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.alias = {}  # ONNX value -> ncnn value, where they differ
        self.split = {}  # ONNX value -> parts not yet read
        self.blobs = 0

    def raw(self, array):
        self.blob += np.ascontiguousarray(array, "<f4").tobytes()

    def main_weight(self, name):
        """The weights of a layer, [O,I,...], after a tag for their type."""
        codes = self.plain.codes.get(name)
        self.blob += struct.pack("<I", TAG_INT8 if codes else TAG_FLOAT)
        if codes is None:
            self.raw(self.weights[name])
            return
        self.blob += codes[0].tobytes() + bytes(-codes[0].size % 4)

    def scales(self, node):
        """Those of an int8 layer, behind its bias; returns the parameter for it."""
        codes = self.plain.codes.get(node.input[1])
        if codes is None:
            return {}
        self.raw(1 / codes[1])
        self.raw(self.plain.scale(node.input[0]))
        readers = self.readers.get(node.output[0], ())
        if node.op_type == "Gemm" or not readers or any(r.op_type not in CONVOLUTIONS for r in readers):
            return {8: INT8}
        self.raw(self.plain.scale(node.output[0]))
        return {8: INT8_RESULT}

    def read(self, name):
        name = self.alias.get(name, name)
        return self.split[name].pop() if name in self.split else name

    def layer(self, kind, inputs, output, parameters):
        text = " ".join(f"{k}={v}" for k, v in parameters.items())
        names = [self.read(name) for name in inputs]
        self.emit(kind, f"{kind.lower()}_{output}", names, [output], text)
        self.fan_out(output, len(self.readers.get(output, ())))

    def emit(self, kind, name, inputs, outputs, text):
        self.blobs += len(outputs)
        self.lines.append(" ".join([kind, name, str(len(inputs)), str(len(outputs)), *inputs, *outputs, text]))

    def fan_out(self, name, count):
        if count > 1:
            parts = [f"{name}_part{i}" for i in range(count)]
            self.emit("Split", f"split_{name}", [name], parts, "")
            self.split[name] = parts

    def fusable(self, node):
        """The activation that is the one reader of a convolution, and its ncnn parameters; None where codes without
        negative values are the activation."""
        readers = self.readers.get(node.output[0], ())
        if len(readers) == 1 and readers[0].op_type == "Relu":
            return readers[0], {9: ACTIVATION_RELU}
        if len(readers) == 1 and readers[0].op_type == "Clip":
            lo, hi = (float(self.weights[name]) for name in readers[0].input[1:])
            return readers[0], {9: ACTIVATION_CLIP, -23310: f"2,{lo:e},{hi:e}"}
        low, high = self.plain.ranges.get(node.output[0], (-1, 1))
        if low < 0:
            return None, {}
        if any(r.op_type == "GlobalAveragePool" for r in readers):
            return None, {9: ACTIVATION_CLIP, -23310: f"2,{low:e},{high:e}"}
        return None, {9: ACTIVATION_RELU}  # what follows saturates


def attributes(node):
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def window(a):
    """Kernel, dilation, stride and pads of (de)convolutions."""
    top, left, bottom, right = a["pads"]
    dilation = a.get("dilations", [1, 1])
    return {1: a["kernel_shape"][1], 11: a["kernel_shape"][0], 2: dilation[1], 12: dilation[0],
            3: a["strides"][1], 13: a["strides"][0], 4: left, 14: top, 15: right, 16: bottom}


def convolution(w, node):
    """Conv and ConvTranspose; returns the fused activation, None when there is none."""
    a, weight = attributes(node), w.weights[node.input[1]]
    transposed = node.op_type == "ConvTranspose"
    if transposed:
        weight = w.weights[node.input[1]] = weight.transpose(1, 0, 2, 3)  # ncnn: [O,I,KH,KW] for both
    p = {0: weight.shape[0], **window(a), 5: 1, 6: weight.size}
    kind = "Deconvolution" if transposed else "Convolution"
    if transposed:
        p |= {18: a["output_padding"][1], 19: a["output_padding"][0]}
    elif a["group"] > 1:
        kind, p[7] = "ConvolutionDepthWise", a["group"]
    activation, extra = w.fusable(node)
    w.main_weight(node.input[1])
    w.raw(w.weights[node.input[2]])
    w.layer(kind, node.input[:1], (activation or node).output[0], p | w.scales(node) | extra)
    return activation


def max_pool(w, node):
    a = attributes(node)
    top, left, bottom, right = a["pads"]
    w.layer("Pooling", node.input, node.output[0],
            {0: 0, 1: a["kernel_shape"][1], 11: a["kernel_shape"][0], 2: a["strides"][1], 12: a["strides"][0],
             3: left, 13: top, 14: right, 15: bottom, 5: 1})


def prelu(w, node):
    slope = w.weights[node.input[1]]
    w.raw(slope)
    w.layer("PReLU", node.input[:1], node.output[0], {0: slope.size})


def gemm(w, node):
    weight = w.weights[node.input[1]]
    w.main_weight(node.input[1])
    w.raw(w.weights[node.input[2]])
    w.layer("InnerProduct", node.input[:1], node.output[0],
            {0: weight.shape[0], 1: 1, 2: weight.size} | w.scales(node))


def add(w, node):
    """With a ReLU behind it where the codes of the sum are its ReLU."""
    value, (low, _) = node.output[0], w.plain.ranges.get(node.output[0], (-1, 1))
    if low < 0:
        other(w, node)
        return
    w.emit("BinaryOp", f"binaryop_{value}", [w.read(name) for name in node.input], [value + "_sum"], "0=0")
    w.layer("ReLU", [value + "_sum"], value, {})


def other(w, node):
    kind, p = {
        "Relu": ("ReLU", {}),
        "Add": ("BinaryOp", {0: 0}),
        "GlobalAveragePool": ("Pooling", {0: 1, 4: 1}),
        "DepthToSpace": ("PixelShuffle", {0: attributes(node).get("blocksize"), 1: 0}),
    }[node.op_type]
    w.layer(kind, node.input, node.output[0], p)


def convert(onnx_path, stem):
    """Writes STEM.param and STEM.bin; returns the name of the output."""
    model = onnx.load(onnx_path)
    w = Writer(model)
    w.layer("Input", [], "input", {})
    done = set()
    special = {"MaxPool": max_pool, "PRelu": prelu, "Gemm": gemm, "Add": add}
    for node in w.plain.nodes:
        if node.name in done:
            continue
        if node.op_type in CONVOLUTIONS:
            activation = convolution(w, node)
            done |= {activation.name} if activation else set()
        elif node.op_type == "Flatten":  # a global pool gives a vector already
            w.alias[node.output[0]] = node.input[0]
        else:
            special.get(node.op_type, other)(w, node)
    with open(stem + ".param", "w", encoding="ascii") as file:
        file.write("\n".join(["7767517", f"{len(w.lines)} {w.blobs}", *w.lines]) + "\n")
    with open(stem + ".bin", "wb") as file:
        file.write(w.blob)
    return w.plain.output
