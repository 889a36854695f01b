#!/usr/bin/env python3
"""make_golden.py - small networks of every family that the compiler claims, with an answer from outside.

    build/engines-venv/bin/python tests/compiler/golden_onnx/make_golden.py      (after bench/engines/setup.sh)

Writes NAME.onnx, NAME.in and NAME.out (raw little-endian floats in ONNX order) beside this script. NAME.out is what ONNX
Runtime computes without its optimisations; onnx.reference, a second implementation, has to agree before a file is
written. Operators are spelled as exporters spell them: batch norm unfolded, hard swish and layer norm in parts.

The networks named q_... are 8-bit, from onnxruntime's quantizer. Without its optimisations ONNX Runtime computes them as
the file says, in floats between QuantizeLinear and DequantizeLinear; with them, in integers. What is printed of these
networks: the step of the output (its scale) and by how many steps integers and floats differ.
"""

import os
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import version_converter
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnxruntime.quantization import QuantType

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../bench/engines"))
import quantized  # noqa: E402 # after the path is set
from onnx_net import Net  # noqa: E402

SIZE_MAX = 60 * 1024
AGREE = 2e-5  # of the largest output: both sum in float
STEPS_AGREE = 1  # of the output of an 8-bit network, where sums in float decide on which side a half is rounded


def conv_bn(net, x, c_in, c_out, kernel, stride=1, **more):
    return net.batch_norm(net.conv(x, c_in, c_out, kernel, stride, bias=False, **more), c_out)


def head(net, x, channels, classes=5):
    return net.gemm(net.op("Flatten", net.op("GlobalAveragePool", x), axis=1), channels, classes)


def max_pool(net, x, kernel, stride, pad=0, **more):
    return net.op("MaxPool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, **more)


# ---- classifiers -----------------------------------------------------------------------------------------------------


def resnet_basic(net):
    """Basic blocks, one with stride 2 and a convolution as shortcut (He et al., arXiv:1512.03385)."""
    x, c_in = net.relu(conv_bn(net, net.input(1, 3, 16, 16), 3, 8, 3)), 8
    for c_out, stride in ((8, 1), (12, 2)):
        y = net.relu(conv_bn(net, x, c_in, c_out, 3, stride))
        y = conv_bn(net, y, c_out, c_out, 3)
        short = x if stride == 1 else conv_bn(net, x, c_in, c_out, 1, stride)
        x, c_in = net.relu(net.add(y, short)), c_out
    return head(net, x, 12)


def resnet_bottleneck(net):
    x = net.relu(conv_bn(net, net.input(1, 3, 24, 24), 3, 8, 7, 2))
    x, c_in = max_pool(net, x, 3, 2, 1), 8
    for stride in (1, 2):
        y = net.relu(conv_bn(net, x, c_in, 6, 1))
        y = net.relu(conv_bn(net, y, 6, 6, 3, stride))
        y = conv_bn(net, y, 6, 24, 1)
        x, c_in = net.relu(net.add(y, conv_bn(net, x, c_in, 24, 1, stride))), 24
    return head(net, x, 24)


def resnext(net):
    """Grouped 3x3 (Xie et al., arXiv:1611.05431)."""
    x = net.input(1, 6, 9, 11)
    y = net.relu(conv_bn(net, x, 6, 16, 1))
    y = net.relu(conv_bn(net, y, 16, 16, 3, groups=4))
    return net.relu(net.add(conv_bn(net, y, 16, 6, 1), x))


def mobilenet_v2(net):
    """Inverted residuals on odd extents (Sandler et al., arXiv:1801.04381)."""
    x, c_in = net.relu6(conv_bn(net, net.input(1, 3, 19, 17), 3, 8, 3, 2)), 8
    for t, c_out, stride in ((1, 6, 1), (4, 10, 2), (4, 10, 1)):
        y, hidden = x, t * c_in
        if t > 1:
            y = net.relu6(conv_bn(net, y, c_in, hidden, 1))
        y = net.relu6(conv_bn(net, y, hidden, hidden, 3, stride, groups=hidden))
        y = conv_bn(net, y, hidden, c_out, 1)
        x, c_in = net.add(x, y) if stride == 1 and c_in == c_out else y, c_out
    pooled = net.op("GlobalAveragePool", net.relu6(conv_bn(net, x, 10, 20, 1)))
    flat = net.op("Flatten", pooled, axis=1)
    return net.gemm(net.op("Dropout", [flat, net.weight(0.2)]), 20, 5)


def squeeze_excite(net, x, channels, squeezed, act, gate):
    s = net.op("GlobalAveragePool", x)
    s = act(net, net.conv(s, channels, squeezed, 1))
    return net.op("Mul", [gate(net, net.conv(s, squeezed, channels, 1)), x])


def hard_sigmoid(net, x):
    return net.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)


def swish(net, x):
    return net.op("Mul", [x, net.op("Sigmoid", x)])


def mobilenet_v3(net):
    """Squeeze and excite with hard sigmoid; hard swish as operator and in parts (Howard et al., arXiv:1905.02244)."""
    x = net.op("HardSwish", conv_bn(net, net.input(1, 3, 14, 14), 3, 8, 3, 2))
    y = net.relu(conv_bn(net, x, 8, 20, 1))
    y = net.relu(conv_bn(net, y, 20, 20, 5, groups=20))
    y = squeeze_excite(net, y, 20, 6, Net.relu, hard_sigmoid)
    x = net.add(conv_bn(net, y, 20, 8, 1), x)
    y = conv_bn(net, x, 8, 16, 1)
    three = net.op("Clip", [net.op("Add", [y, net.weight(3)]), net.weight(0), net.weight(6)])
    return head(net, net.op("Div", [net.op("Mul", [y, three]), net.weight(6)]), 16)


def efficientnet(net):
    """Swish as Sigmoid and Mul, squeeze and excite with sigmoid (Tan & Le, arXiv:1905.11946)."""
    x = swish(net, conv_bn(net, net.input(1, 3, 12, 12), 3, 6, 3, 2))
    y = swish(net, conv_bn(net, x, 6, 24, 1))
    y = swish(net, conv_bn(net, y, 24, 24, 3, groups=24))
    y = squeeze_excite(net, y, 24, 3, swish, lambda n, v: n.op("Sigmoid", v))
    x = net.add(conv_bn(net, y, 24, 6, 1), x)
    return head(net, swish(net, conv_bn(net, x, 6, 18, 1)), 18)


def channel_shuffle(net, x, channels, groups, height, width):
    x = net.op("Reshape", [x, net.ints(1, groups, channels // groups, height, width)])
    x = net.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    return net.op("Reshape", [x, net.ints(1, -1, height, width)])


def shufflenet_v1(net):
    """Grouped 1x1, shuffle, average pool beside a strided branch (Zhang et al., arXiv:1707.01083)."""
    x = net.relu(net.conv(net.input(1, 3, 12, 10), 3, 12, 3))
    y = net.relu(conv_bn(net, x, 12, 12, 1, groups=3))
    y = channel_shuffle(net, y, 12, 3, 12, 10)
    y = conv_bn(net, conv_bn(net, y, 12, 12, 3, 2, groups=12), 12, 12, 1, groups=3)
    short = net.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    return head(net, net.relu(net.op("Concat", [short, y], axis=1)), 24)


def shufflenet_v2(net):
    """Split, a branch, concatenation, shuffle (Ma et al., arXiv:1807.11164)."""
    x = net.relu(conv_bn(net, net.input(1, 3, 10, 8), 3, 12, 3))
    for _ in range(2):
        left, right = net.op("Split", [x, net.ints(6, 6)], outputs=2, axis=1)
        right = net.relu(conv_bn(net, right, 6, 6, 1))
        right = net.relu(conv_bn(net, conv_bn(net, right, 6, 6, 3, groups=6), 6, 6, 1))
        x = channel_shuffle(net, net.op("Concat", [left, right], axis=1), 12, 2, 10, 8)
    return head(net, x, 12)


def squeezenet(net):
    """Fire modules, max pools in ceil mode, a convolution as classifier (Iandola et al., arXiv:1602.07360)."""
    x, c_in = net.relu(net.conv(net.input(1, 3, 22, 20), 3, 10, 3, 2, pads=[0] * 4)), 10
    for squeeze, expand in ((4, 8), (6, 10)):
        x = max_pool(net, x, 3, 2, ceil_mode=1)
        s = net.relu(net.conv(x, c_in, squeeze, 1))
        parts = [net.relu(net.conv(s, squeeze, expand, k)) for k in (1, 3)]
        x, c_in = net.op("Concat", parts, axis=1), 2 * expand
    x = net.relu(net.conv(net.op("Dropout", x), c_in, 5, 1))
    return net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)


def densenet(net):
    """BN-ReLU-Conv layers that grow by concatenation, a transition (Huang et al., arXiv:1608.06993)."""
    x, channels = net.conv(net.input(1, 3, 14, 14), 3, 8, 3, bias=False), 8
    for _ in range(3):
        y = net.conv(net.relu(net.batch_norm(x, channels)), channels, 12, 1, bias=False)
        y = net.conv(net.relu(net.batch_norm(y, 12)), 12, 6, 3, bias=False)
        x, channels = net.op("Concat", [x, y], axis=1), channels + 6
    x = net.conv(net.relu(net.batch_norm(x, channels)), channels, 10, 1, bias=False)
    x = net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return head(net, net.relu(net.batch_norm(x, 10)), 10)


def inception(net):
    """Four branches: 1x1, 1x7 and 7x1, 5x5, average pool that counts its padding (Szegedy et al., arXiv:1512.00567)."""
    x = net.relu(net.conv(net.input(1, 3, 11, 13), 3, 6, 3))
    a = net.relu(net.conv(x, 6, 5, 1))
    b = net.relu(net.conv(net.relu(net.conv(x, 6, 4, (1, 7))), 4, 6, (7, 1)))
    c = net.relu(net.conv(net.relu(net.conv(x, 6, 3, 1)), 3, 4, 5))
    d = net.op("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, count_include_pad=1)
    d = net.relu(net.conv(d, 6, 3, 1))
    return net.op("Concat", [a, b, c, d], axis=1)


def alexnet(net):
    """Large strided kernel, LRN, groups, Gemm over a flattened image, softmax (Krizhevsky et al., 2012)."""
    x = net.relu(net.conv(net.input(1, 3, 24, 24), 3, 8, 7, 3, pads=[0] * 4))
    x = net.op("LRN", x, size=5, alpha=0.1, beta=0.75, bias=2.0)
    x = net.relu(net.conv(max_pool(net, x, 2, 2), 8, 10, 3, groups=2))
    flat = net.op("Flatten", x, axis=1)
    y = net.relu(net.gemm(flat, 10 * 3 * 3, 24))
    return net.op("Softmax", net.gemm(net.op("Dropout", y), 24, 5), axis=-1)


def vgg_reshape(net):
    """Convolutions and pools; the flattening written with Shape, Gather and Concat, as older exporters do."""
    x = max_pool(net, net.relu(net.conv(net.input(1, 3, 12, 12), 3, 8, 3)), 2, 2)
    x = max_pool(net, net.relu(net.conv(x, 8, 8, 3)), 2, 2)
    batch = net.op("Gather", [net.op("Shape", x), net.weight(0, np.int64)], axis=0)
    batch = net.op("Unsqueeze", [batch, net.ints(0)])
    flat = net.op("Reshape", [x, net.op("Concat", [batch, net.ints(-1)], axis=0)])
    return net.gemm(flat, 72, 5)


# ---- images to images ------------------------------------------------------------------------------------------------


def fsrcnn(net):
    x = net.prelu(net.conv(net.input(1, 1, 10, 12), 1, 10, 5), 10)
    x = net.prelu(net.conv(x, 10, 4, 1), 4)
    x = net.prelu(net.conv(x, 4, 4, 3), 4)
    x = net.prelu(net.conv(x, 4, 10, 1), 10)
    return net.conv_transpose(x, 10, 1, 9, 3)


def wdsr(net):
    image = net.op("Sub", [net.input(1, 3, 9, 14), net.weight(0.5)])
    x = net.conv(image, 3, 8, 3)
    for _ in range(2):
        y = net.conv(net.relu(net.conv(x, 8, 24, 1)), 24, 6, 1)
        x = net.add(net.conv(y, 6, 8, 3), x)
    x = net.add(net.conv(x, 8, 12, 3), net.conv(image, 3, 12, 5))
    return net.op("Add", [net.depth_to_space(x, 2), net.weight(0.5)])


def espcn(net):
    """Tanh between convolutions; the shuffle in the channel order of TensorFlow (Shi et al., arXiv:1609.05158)."""
    x = net.op("Tanh", net.conv(net.input(1, 1, 11, 9), 1, 8, 5))
    x = net.conv(net.op("Tanh", net.conv(x, 8, 6, 3)), 6, 18, 3)
    return net.op("DepthToSpace", x, blocksize=3, mode="DCR")


def resize(net, x, mode, coordinates, scales=None, sizes=None, **more):
    inputs = [x, "", net.weight([1, 1, *scales])] if scales else [x, "", "", net.ints(*sizes)]
    return net.op("Resize", inputs, mode=mode, coordinate_transformation_mode=coordinates, **more)


def unet(net):
    """Down by max pool, up by nearest and bilinear, skips (Ronneberger et al., arXiv:1505.04597)."""
    a = net.relu(net.conv(net.input(1, 3, 16, 16), 3, 6, 3))
    b = net.relu(net.conv(max_pool(net, a, 2, 2), 6, 8, 3))
    c = net.relu(net.conv(max_pool(net, b, 2, 2), 8, 10, 3))
    up = resize(net, c, "nearest", "asymmetric", scales=(2, 2), nearest_mode="floor")
    b = net.relu(net.conv(net.op("Concat", [up, b], axis=1), 18, 8, 3))
    up = resize(net, b, "linear", "half_pixel", scales=(2, 2))
    a = net.relu(net.conv(net.op("Concat", [up, a], axis=1), 14, 6, 3))
    return net.op("Sigmoid", net.conv(a, 6, 1, 1))


def unet_transposed(net):
    """Up by transposed convolutions of even kernel, as in the paper."""
    a = net.relu(net.conv(net.input(1, 2, 10, 12), 2, 6, 3))
    b = net.relu(net.conv(max_pool(net, a, 2, 2), 6, 8, 3))
    w = net.weight(net.normal((8, 6, 2, 2), 0.3))
    up = net.op("ConvTranspose", [b, w, net.weight(net.normal(6, 0.1))], kernel_shape=[2, 2], strides=[2, 2])
    return net.conv(net.op("Concat", [a, up], axis=1), 12, 3, 3)


def deeplab(net):
    """Dilated branches and one pooled to a pixel and resized back (Chen et al., arXiv:1706.05587)."""
    x = net.relu(net.conv(net.input(1, 3, 13, 15), 3, 6, 3))
    parts = [net.relu(net.conv(x, 6, 4, 3, dilation=d)) for d in (1, 2, 4)]
    pooled = net.relu(net.conv(net.op("GlobalAveragePool", x), 6, 4, 1))
    parts.append(resize(net, pooled, "linear", "half_pixel", sizes=(1, 4, 13, 15)))
    x = net.conv(net.op("Concat", parts, axis=1), 16, 3, 1)
    return resize(net, x, "linear", "align_corners", sizes=(1, 3, 26, 30))


def yolo_tiny(net):
    """Leaky ReLU, stride-1 max pool with padding at the end alone, a route back up (Redmon, arXiv:1804.02767)."""
    def block(x, c_in, c_out, kernel=3):
        return net.op("LeakyRelu", conv_bn(net, x, c_in, c_out, kernel), alpha=0.1)

    early = block(max_pool(net, block(net.input(1, 3, 16, 16), 3, 6), 2, 2), 6, 8)
    x = block(max_pool(net, early, 2, 2), 8, 10)
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[1, 1], auto_pad="SAME_UPPER")
    x = block(x, 10, 6, 1)
    up = resize(net, x, "nearest", "half_pixel", scales=(2, 2), nearest_mode="round_prefer_floor")
    return net.conv(net.op("Concat", [up, early], axis=1), 14, 9, 1)


def tensorflow_pads(net):
    """An explicit Pad, SAME_UPPER on even extents, ReLU6 by Clip, the mean over pixels by ReduceMean."""
    x = net.op("Pad", [net.input(1, 3, 12, 14), net.ints(0, 0, 0, 0, 0, 0, 1, 1)])
    x = net.relu6(net.conv(x, 3, 8, 3, 2, pads=[0] * 4))
    w = net.weight(net.normal((8, 1, 3, 3), 0.4))
    x = net.op("Conv", [x, w], strides=[2, 2], auto_pad="SAME_UPPER", group=8)
    x = net.op("ReduceMean", net.relu6(x), axes=[2, 3], keepdims=0)
    return net.gemm(x, 8, 5)


# ---- attention -------------------------------------------------------------------------------------------------------


def linear(net, x, c_in, c_out):
    """A dense layer on the last axis, as torch exports it for rank 3 and 4."""
    y = net.op("MatMul", [x, net.weight(net.normal((c_in, c_out), np.sqrt(1 / c_in)))])
    return net.op("Add", [net.weight(net.normal(c_out, 0.1)), y])


def layer_norm(net, x, channels):
    scale, bias = net.weight(net.rng.uniform(0.5, 1.5, channels)), net.weight(net.normal(channels, 0.1))
    return net.op("LayerNormalization", [x, scale, bias], axis=-1, epsilon=1e-6)


def layer_norm_parts(net, x, channels):
    """What exporters wrote before opset 17."""
    centred = net.op("Sub", [x, net.op("ReduceMean", x, axes=[-1])])
    variance = net.op("ReduceMean", net.op("Pow", [centred, net.weight(2)]), axes=[-1])
    y = net.op("Div", [centred, net.op("Sqrt", net.op("Add", [variance, net.weight(1e-6)]))])
    y = net.op("Mul", [y, net.weight(net.rng.uniform(0.5, 1.5, channels))])
    return net.op("Add", [y, net.weight(net.normal(channels, 0.1))])


def gelu(net, x):
    e = net.op("Erf", net.op("Div", [x, net.weight(np.sqrt(2))]))
    return net.op("Mul", [net.op("Mul", [x, net.op("Add", [e, net.weight(1)])]), net.weight(0.5)])


def attend(net, x, tokens, channels, heads):
    """Multi-head self-attention on [1, tokens, channels]."""
    def split(y, perm):
        y = net.op("Reshape", [y, net.ints(1, tokens, heads, channels // heads)])
        return net.op("Transpose", y, perm=perm)

    q, k, v = (linear(net, x, channels, channels) for _ in range(3))
    scores = net.op("MatMul", [split(q, [0, 2, 1, 3]), split(k, [0, 2, 3, 1])])
    scores = net.op("Softmax", net.op("Div", [scores, net.weight(np.sqrt(channels // heads))]), axis=-1)
    y = net.op("Transpose", net.op("MatMul", [scores, split(v, [0, 2, 1, 3])]), perm=[0, 2, 1, 3])
    return linear(net, net.op("Reshape", [y, net.ints(1, tokens, channels)]), channels, channels)


def transformer(net, norm):
    """One encoder block on 4x4 patches of 4x4 (Dosovitskiy et al., arXiv:2010.11929)."""
    x = net.conv(net.input(1, 3, 16, 16), 3, 12, 4, 4, pads=[0] * 4)
    x = net.op("Transpose", net.op("Reshape", [x, net.ints(1, 12, 16)]), perm=[0, 2, 1])
    x = net.op("Add", [x, net.weight(net.normal((1, 16, 12), 0.2))])
    x = net.add(x, attend(net, norm(net, x, 12), 16, 12, 3))
    y = linear(net, gelu(net, linear(net, norm(net, x, 12), 12, 24)), 24, 12)
    x = norm(net, net.add(x, y), 12)
    return net.gemm(net.op("ReduceMean", x, axes=[1], keepdims=0), 12, 5)


def vit(net):
    return transformer(net, layer_norm)


def vit_parts(net):
    return transformer(net, layer_norm_parts)


def convnext(net):
    """7x7 depthwise, then layer norm and dense layers with the channels last (Liu et al., arXiv:2201.03545)."""
    x = net.conv(net.input(1, 3, 16, 16), 3, 8, 4, 4, pads=[0] * 4)
    y = net.op("Transpose", net.conv(x, 8, 8, 7, groups=8), perm=[0, 2, 3, 1])
    y = linear(net, gelu(net, linear(net, layer_norm(net, y, 8), 8, 32)), 32, 8)
    y = net.op("Mul", [net.weight(net.normal(8, 1)), y])
    x = net.add(x, net.op("Transpose", y, perm=[0, 3, 1, 2]))
    return head(net, x, 8)


def spatial_attention(net):
    """Attention over pixels with 1x1 convolutions as projections, rank 4 all along (Wang et al., arXiv:1711.07971)."""
    x = net.conv(net.input(1, 3, 6, 5), 3, 8, 3)
    q, k, v = (net.conv(x, 8, 4, 1) for _ in range(3))
    rows = [net.op("Reshape", [t, net.ints(1, 1, 4, 30)]) for t in (q, k, v)]
    across = [net.op("Transpose", t, perm=[0, 1, 3, 2]) for t in rows]
    scores = net.op("Softmax", net.op("MatMul", [across[0], rows[1]]), axis=-1)
    y = net.op("Transpose", net.op("MatMul", [scores, across[2]]), perm=[0, 1, 3, 2])
    return net.add(net.conv(net.op("Reshape", [y, net.ints(1, 4, 6, 5)]), 4, 8, 1), x)


def attend_qkv(net, x, batch, tokens, channels, heads, bias=None):
    """Queries, keys and values of one projection: rank 5, as timm writes it. `bias` of the scores, [1, heads, tokens, tokens]."""
    y = linear(net, x, channels, 3 * channels)
    y = net.op("Reshape", [y, net.ints(batch, tokens, 3, heads, channels // heads)])
    y = net.op("Transpose", y, perm=[2, 0, 3, 1, 4])
    q, k, v = (net.op("Gather", [y, net.weight(i, np.int64)], axis=0) for i in range(3))
    q = net.op("Mul", [q, net.weight((channels // heads) ** -0.5)])
    scores = net.op("MatMul", [q, net.op("Transpose", k, perm=[0, 1, 3, 2])])
    if bias is not None:
        scores = net.op("Add", [scores, net.weight(bias)])
    y = net.op("MatMul", [net.op("Softmax", scores, axis=-1), v])
    y = net.op("Reshape", [net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(batch, tokens, channels)])
    return linear(net, y, channels, channels)


def vit_token(net):
    """A class token before the patches, the answer read off it (Dosovitskiy et al., arXiv:2010.11929)."""
    x = net.conv(net.input(1, 3, 16, 16), 3, 12, 4, 4, pads=[0] * 4)
    x = net.op("Transpose", net.op("Reshape", [x, net.ints(0, 0, -1)]), perm=[0, 2, 1])
    token = net.op("Expand", [net.weight(net.normal((1, 1, 12), 0.2)), net.ints(1, 1, 12)])
    x = net.op("Add", [net.op("Concat", [token, x], axis=1), net.weight(net.normal((1, 17, 12), 0.2))])
    x = net.add(x, attend_qkv(net, layer_norm(net, x, 12), 1, 17, 12, 3))
    x = net.add(x, linear(net, gelu(net, linear(net, layer_norm(net, x, 12), 12, 24)), 24, 12))
    return net.gemm(net.op("Gather", [layer_norm(net, x, 12), net.weight(0, np.int64)], axis=1), 12, 5)


def windows(net, x, side, window, channels, back=False):
    """[1, side, side, channels] in windows of window^2 tokens, and back."""
    n = side // window
    apart = (1, n, n, window, window, channels) if back else (1, n, window, n, window, channels)
    x = net.op("Transpose", net.op("Reshape", [x, net.ints(*apart)]), perm=[0, 1, 3, 2, 4, 5])
    return net.op("Reshape", [x, net.ints(*((1, side, side, channels) if back else (n * n, window**2, channels)))])


def swin(net):
    """Attention in shifted windows with a bias of position, then merged patches (Liu et al., arXiv:2103.14030)."""
    x = net.conv(net.input(1, 3, 32, 32), 3, 12, 4, 4, pads=[0] * 4)
    x = net.op("Transpose", x, perm=[0, 2, 3, 1])
    y, end = layer_norm(net, x, 12), net.ints(2**31)
    for axis in (1, 2):  # torch.roll
        parts = [net.op("Slice", [y, net.ints(2), end, net.ints(axis)]),
                 net.op("Slice", [y, net.ints(0), net.ints(2), net.ints(axis)])]
        y = net.op("Concat", parts, axis=axis)
    y = attend_qkv(net, windows(net, y, 8, 4, 12), 4, 16, 12, 3, net.normal((1, 3, 16, 16), 0.3))
    x = net.add(x, windows(net, y, 8, 4, 12, back=True))
    parts = [net.op("Slice", [x, net.ints(i, j), net.ints(2**31, 2**31), net.ints(1, 2), net.ints(2, 2)])
             for j in (0, 1) for i in (0, 1)]
    x = linear(net, layer_norm(net, net.op("Concat", parts, axis=-1), 48), 48, 24)
    return net.gemm(net.op("ReduceMean", x, axes=[1, 2], keepdims=0), 24, 5)


def cbam(net):
    """A gate from the mean and the maximum over channels (Woo et al., arXiv:1807.06521)."""
    x = net.conv(net.input(1, 3, 8, 9), 3, 8, 3)
    parts = [net.op(how, x, axes=[1], keepdims=1) for how in ("ReduceMean", "ReduceMax")]
    return net.op("Mul", [x, net.op("Sigmoid", net.conv(net.op("Concat", parts, axis=1), 2, 1, 3))])


# ---- 8-bit networks --------------------------------------------------------------------------------------------------


def q_residual(net):
    """Shortcut as it is and by a strided 1x1, max pool, global average pool, fully connected."""
    x = max_pool(net, net.relu(net.conv(net.input(1, 3, 20, 18), 3, 16, 3)), 3, 2, 1)
    y = net.conv(net.relu(net.conv(x, 16, 16, 3)), 16, 16, 3, gain=0.5)
    x = net.relu(net.add(y, x))
    y = net.conv(net.relu(net.conv(x, 16, 24, 3, 2)), 24, 24, 3, gain=0.5)
    x = net.relu(net.add(y, net.conv(x, 16, 24, 1, 2)))
    return head(net, x, 24, 10)


def q_mobilenet(net):
    """Depthwise, strided and not, ReLU6, residual without activation."""
    x = net.relu6(net.conv(net.input(1, 3, 17, 19), 3, 8, 3, 2))
    for c_out, stride in ((12, 2), (12, 1)):
        c_in = 8 if stride == 2 else 12
        y = net.relu6(net.conv(x, c_in, 4 * c_in, 1))
        y = net.relu6(net.conv(y, 4 * c_in, 4 * c_in, 3, stride, groups=4 * c_in, gain=2))
        y = net.conv(y, 4 * c_in, c_out, 1)
        x = net.add(x, y) if stride == 1 else y
    return head(net, net.relu6(net.conv(x, 12, 40, 1, gain=2)), 40, 6)


def q_sr(net):
    """3x3 convolutions of 16 channels on an image, a long shortcut, the shuffle outside of the quantization."""
    x = first = net.relu(net.conv(net.input(1, 3, 15, 21), 3, 16, 3))
    for _ in range(2):
        x = net.relu(net.conv(x, 16, 16, 3))
    x = net.add(net.conv(x, 16, 16, 3), first)
    return net.depth_to_space(net.conv(x, 16, 12, 3), 2)


def q_fsrcnn(net):
    """PReLU in float between quantizations; the transposed convolution as onnxruntime quantizes it."""
    x = net.prelu(net.conv(net.input(1, 1, 11, 10), 1, 12, 5), 12)
    x = net.prelu(net.conv(x, 12, 6, 1), 6)
    x = net.prelu(net.conv(x, 6, 12, 3), 12)
    return net.conv_transpose(x, 12, 1, 9, 2)


def q_branches(net):
    """Concatenation of branches whose values differ in size, and one that grows its own input."""
    x = net.relu(net.conv(net.input(1, 3, 12, 13), 3, 10, 3))
    pooled = net.op("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    parts = [net.relu(net.conv(x, 10, 6, 1, gain=0.2)), net.conv(x, 10, 7, 3, gain=3), max_pool(net, x, 3, 1, 1),
             net.conv(pooled, 10, 5, 1)]
    x = net.op("Concat", parts, axis=1)
    y = net.relu(net.conv(x, 28, 8, 1, gain=0.5))
    x = net.op("Concat", [x, net.conv(y, 8, 6, 3)], axis=1)
    x = net.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2])  # of nine codes: never half of a step
    return net.relu(net.conv(x, 34, 9, 1))


def q_signed(net):
    """int8 activations with zero point 0: the ReLUs stay in the file."""
    x = net.relu(net.conv(net.input(1, 4, 14, 15), 4, 16, 3))
    y = net.conv(net.relu(net.conv(x, 16, 16, 3, groups=16, gain=1.5)), 16, 16, 1)
    x = net.relu(net.add(max_pool(net, y, 3, 1, 1), x))
    x = net.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, count_include_pad=1)
    return net.conv(x, 16, 7, 3)


def q_per_tensor(net):
    """One scale for all weights of a layer."""
    x = net.relu(net.conv(net.input(1, 3, 13, 11), 3, 12, 3, 2))
    x = net.relu(net.conv(x, 12, 12, 3))
    return head(net, net.relu(net.conv(x, 12, 20, 1)), 20, 7)


def q_grouped(net):
    """Groups, dilation, 5x5, a padding that differs by side, channel counts that fit no vector."""
    x = net.relu(net.conv(net.input(1, 3, 16, 19), 3, 14, 5, 2, pads=[1, 2, 2, 2]))
    x = net.relu(net.conv(x, 14, 21, 3, groups=7))
    x = net.relu(net.conv(x, 21, 13, 3, dilation=2))
    return net.conv(x, 13, 5, (1, 3))


def q_island(net):
    """Hard swish, a gate by sigmoid and a resize that stay in float between convolutions of integers."""
    x = net.relu(net.conv(net.input(1, 3, 10, 12), 3, 12, 3, 2))
    x = net.op("HardSwish", net.conv(x, 12, 12, 3))
    x = squeeze_excite(net, x, 12, 4, Net.relu, lambda n, v: n.op("Sigmoid", v))
    x = resize(net, net.conv(x, 12, 8, 1), "linear", "half_pixel", scales=(2, 2))
    return net.conv(net.relu(net.conv(x, 8, 8, 3)), 8, 3, 3)


def q_float_output(net):
    """The last layer has integer operands and a result in float."""
    x = net.relu(net.conv(net.input(1, 3, 9, 9), 3, 16, 3))
    x = net.relu(net.conv(x, 16, 16, 3))
    return net.conv(x, 16, 6, 1)


def q_float_head(net):
    """The classifier is not quantized at all."""
    x = net.relu(net.conv(net.input(1, 3, 12, 12), 3, 16, 3, 2))
    return head(net, net.relu(net.conv(x, 16, 18, 3)), 18, 5)


NETWORKS = (resnet_basic, resnet_bottleneck, resnext, mobilenet_v2, mobilenet_v3, efficientnet, shufflenet_v1,
            shufflenet_v2, squeezenet, densenet, inception, alexnet, vgg_reshape, fsrcnn, wdsr, espcn, unet,
            unet_transposed, deeplab, yolo_tiny, tensorflow_pads, vit, vit_parts, convnext, spatial_attention,
            vit_token, swin, cbam)

SIGNED = {"signed": True, "activation_type": QuantType.QInt8,
          "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True}}
QUANTIZED = ((q_residual, {}), (q_mobilenet, {}), (q_sr, {}), (q_fsrcnn, {}), (q_branches, {}), (q_signed, SIGNED),
             (q_per_tensor, {"per_channel": False}), (q_grouped, {}),
             (q_island, {"float_types": ("HardSwish", "Sigmoid", "Mul", "GlobalAveragePool", "Resize")}),
             (q_float_output, {"extra_options": {"OpTypesToExcludeOutputQuantization": ["Conv"]}}),
             (q_float_head, {"float_types": ("Gemm",)}))


class LRN(OpRun):
    """Across channels; the one of onnx.reference 1.23 leaves the formula of the ONNX operator."""

    def _run(self, x, alpha, beta, bias, size):
        before, after = (size - 1) // 2, size // 2
        squares = [np.square(x[:, max(0, c - before): c + after + 1]).sum(axis=1) for c in range(x.shape[1])]
        return ((x / (bias + alpha / size * np.stack(squares, axis=1)) ** beta).astype(np.float32),)


def run(path, x, level, exact=False):
    """`exact`: sums of products that do not saturate where the CPU lacks VNNI."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"input": x})[0]


def answer(path, x, step=None):
    """What ONNX Runtime computes, after onnx.reference agreed; in an 8-bit network a code may round to the other side."""
    y = run(path, x, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    model = onnx.load(path)
    if step is not None:
        model = version_converter.convert_version(model, 19)  # the first that onnx.reference can quantize
    second = ReferenceEvaluator(model, new_ops=[LRN]).run(None, {"input": x})[0]
    error = np.abs(y - second).max()
    limit = AGREE * np.abs(y).max() if step is None else (STEPS_AGREE + 0.01) * step
    if not (y.shape == second.shape and error <= limit):
        raise SystemExit(f"{path}: ONNX Runtime and onnx.reference differ by {error:g}, the limit is {limit:g}")
    return y


def save(stem, x, y):
    x.astype("<f4").tofile(stem + ".in")
    y.astype("<f4").tofile(stem + ".out")
    size = os.path.getsize(stem + ".onnx")
    if size > SIZE_MAX:
        raise SystemExit(f"{stem}.onnx is larger than {SIZE_MAX} bytes")
    return f"{os.path.basename(stem):20} {size:6} bytes, output {list(y.shape)}, up to {np.abs(y).max():.3g}"


def write(build, seed):
    stem = os.path.join(HERE, build.__name__)
    net = Net(build.__name__, seed)
    net.save(stem + ".onnx", build(net))
    x = np.random.default_rng(seed).random(net.input_shape(), np.float32)
    print(save(stem, x, answer(stem + ".onnx", x)))


def pick(rng, shape, signed):
    return rng.standard_normal(shape, np.float32) if signed else rng.random(shape, np.float32)


def write_quantized(build, seed, signed=False, float_types=(), **options):
    """`float_types`: operators left in float."""
    stem = os.path.join(HERE, build.__name__)
    net = Net(build.__name__, seed)
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "float.onnx")
        output = build(net)
        net.save(source, output)
        excluded = [n.name for n in net.nodes if n.op_type in float_types]
        rng = np.random.default_rng(seed + 1)
        images = [pick(rng, net.input_shape(), signed) for _ in range(8)]
        quantized.quantize(source, stem + ".onnx", images, nodes_to_exclude=excluded, **options)
        x = pick(np.random.default_rng(seed), net.input_shape(), signed)
        exact = run(source, x, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    step = quantized.output_step(onnx.load(stem + ".onnx")) or float(np.ptp(exact)) / 255
    y = answer(stem + ".onnx", x, step)
    print(f"{save(stem, x, y)}, step {step:.9g}, float network {np.abs(exact - y).max() / step:.1f} steps away")
    for how in (False, True):
        off = np.abs(run(stem + ".onnx", x, ort.GraphOptimizationLevel.ORT_ENABLE_ALL, how) - y) / step
        name = "exact integers" if how else "integers"
        print(f"{'':20} {name}: at most {off.max():.2f} steps, {np.mean(off > 0.5):.1%} differ")


if __name__ == "__main__":
    for number, network in enumerate(NETWORKS):
        write(network, 1000 + number)
    for number, (network, how) in enumerate(QUANTIZED):
        write_quantized(network, 2000 + number, **how)
