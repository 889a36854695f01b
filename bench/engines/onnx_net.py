"""onnx_net.py - a small builder of ONNX files: seeded weights, nodes in order, one input and one output.

Weights are He-initialised (He et al., arXiv:1502.01852) times `gain`, so that values stay near 1 through any depth when
the last layer of a residual branch has a small gain. Shared by bench/engines/nets.py and the goldens of the compiler
tests.
"""

import numpy as np
import onnx
import onnx.shape_inference
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8


class Net:
    """Nodes and weights of one network; methods return the name of the value they add."""

    def __init__(self, name, seed):
        self.name = name
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights, self.inputs = [], [], []

    def input(self, *shape):
        self.inputs.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, shape))
        return "input"

    def input_shape(self):
        return [d.dim_value for d in self.inputs[0].type.tensor_type.shape.dim]

    def weight(self, array, dtype=np.float32):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def ints(self, *values):
        return self.weight(values, np.int64)

    def op(self, op_type, inputs, outputs=1, **attributes):
        inputs = [inputs] if isinstance(inputs, str) else list(inputs)
        stem = f"{op_type.lower()}{len(self.nodes)}"
        names = [stem] if outputs == 1 else [f"{stem}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, names, name=stem, **attributes))
        return names[0] if outputs == 1 else names

    def normal(self, shape, scale):
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def conv(self, x, c_in, c_out, kernel, stride=1, groups=1, pads=None, gain=1.0, bias=True, dilation=1):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        half = [dilation * (k // 2) for k in kernel]
        fan_in = c_in // groups * kernel[0] * kernel[1]
        w = self.normal((c_out, c_in // groups, *kernel), gain * np.sqrt(2 / fan_in))
        inputs = [x, self.weight(w)]
        if bias:
            inputs.append(self.weight(self.normal(c_out, 0.05)))
        return self.op("Conv", inputs, kernel_shape=kernel, strides=[stride] * 2, group=groups,
                       dilations=[dilation] * 2, pads=half + half if pads is None else pads)

    def conv_transpose(self, x, c_in, c_out, kernel, stride, gain=1.0):
        fan_in = c_in * kernel * kernel / stride**2
        w = self.weight(self.normal((c_in, c_out, kernel, kernel), gain * np.sqrt(2 / fan_in)))
        pad = kernel // 2
        return self.op("ConvTranspose", [x, w, self.weight(self.normal(c_out, 0.05))],
                       kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4,
                       output_padding=[stride - 1 - (kernel - 1 - 2 * pad)] * 2)

    def batch_norm(self, x, channels):
        parts = [self.rng.uniform(0.5, 1.5, channels), self.normal(channels, 0.1),
                 self.normal(channels, 0.1), self.rng.uniform(0.5, 1.5, channels)]
        return self.op("BatchNormalization", [x] + [self.weight(p) for p in parts], epsilon=1e-5)

    def gemm(self, x, c_in, c_out):
        w = self.weight(self.normal((c_out, c_in), np.sqrt(1 / c_in)))
        return self.op("Gemm", [x, w, self.weight(self.normal(c_out, 0.05))], transB=1)

    def relu(self, x):
        return self.op("Relu", x)

    def relu6(self, x):
        return self.op("Clip", [x, self.weight(0), self.weight(6)])

    def prelu(self, x, channels):
        slope = self.rng.uniform(0.05, 0.4, (channels, 1, 1))
        return self.op("PRelu", [x, self.weight(slope)])

    def add(self, a, b):
        return self.op("Add", [a, b])

    def depth_to_space(self, x, block):
        return self.op("DepthToSpace", x, blocksize=block, mode="CRD")

    def save(self, path, output):
        """Writes the file, with the name and shape of every value; returns the model."""
        out = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, self.name, self.inputs, [out], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                  producer_name="onnx_net")
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        model.graph.output[0].CopyFrom(inferred.graph.output[0])
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return inferred


def value_shapes(inferred):
    """Name -> dims of every value of a model after shape inference."""
    values = [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def direct_macs(inferred):
    """Multiply-accumulates of convolutions and matrix products, computed directly (taps in the padding count)."""
    shapes = value_shapes(inferred)
    weights = {w.name: list(w.dims) for w in inferred.graph.initializer}
    total = 0
    for node in inferred.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            w = weights[node.input[1]]
            total += int(np.prod(shapes[node.output[0]])) * int(np.prod(w[1:]))
        elif node.op_type == "ConvTranspose":
            total += int(np.prod(shapes[node.input[0]])) * int(np.prod(weights[node.input[1]][1:]))
    return total
