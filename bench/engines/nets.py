"""nets.py - writes the networks of the engine comparison as ONNX files and nets.json (GFLOP of each).

    nets.py FOLDER [NAME...]

Shapes are those of the papers; weights are random, batch norm is already folded as an exporter does in eval mode.
"""

import json
import os
import sys

from onnx_net import Net, direct_macs


def fsrcnn(net, scale):
    """FSRCNN(56, 12, 4), Dong et al., arXiv:1608.00367; one channel, to 720 rows."""
    x = net.input(1, 1, 720 // scale, -(-1280 // scale))
    x = net.prelu(net.conv(x, 1, 56, 5), 56)
    x = net.prelu(net.conv(x, 56, 12, 1), 12)
    for _ in range(4):
        x = net.prelu(net.conv(x, 12, 12, 3), 12)
    x = net.prelu(net.conv(x, 12, 56, 1), 56)
    return net.conv_transpose(x, 56, 1, 9, scale)


def wdsr(net, block):
    """WDSR, Yu et al., arXiv:1808.08718: 16 channels, 5 blocks, x2 from 640x360."""
    image = net.input(1, 3, 360, 640)
    x = net.conv(image, 3, 16, 3)
    for _ in range(5):
        x = net.add(block(net, x), x)
    return net.depth_to_space(net.add(net.conv(x, 16, 12, 3), net.conv(image, 3, 12, 5)), 2)


def wdsr_a_block(net, x):
    return net.conv(net.relu(net.conv(x, 16, 64, 3)), 64, 16, 3, gain=0.3)


def wdsr_b_block(net, x):
    x = net.conv(net.relu(net.conv(x, 16, 96, 1)), 96, 12, 1)
    return net.conv(x, 12, 16, 3, gain=0.3)


def classify(net, x, channels, classes):
    pooled = net.op("GlobalAveragePool", x)
    return net.gemm(net.op("Flatten", pooled, axis=1), channels, classes)


def resnet_cifar(net, blocks):
    """He et al., arXiv:1512.03385, section 4.2; 6*blocks + 2 layers; 1x1 shortcuts."""
    x = net.relu(net.conv(net.input(1, 3, 32, 32), 3, 16, 3))
    c_in = 16
    for c_out in (16, 32, 64):
        for i in range(blocks):
            stride = 2 if i == 0 and c_out > 16 else 1
            y = net.relu(net.conv(x, c_in, c_out, 3, stride))
            y = net.conv(y, c_out, c_out, 3, gain=0.3)
            short = x if c_in == c_out else net.conv(x, c_in, c_out, 1, stride)
            x, c_in = net.relu(net.add(y, short)), c_out
    return classify(net, x, 64, 10)


def resnet50(net):
    """Bottlenecks with the stride in the 3x3 (v1.5)."""
    x = net.relu(net.conv(net.input(1, 3, 224, 224), 3, 64, 7, 2))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    c_in = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        middle = 64 << stage
        for i in range(blocks):
            stride = 2 if i == 0 and stage > 0 else 1
            y = net.relu(net.conv(x, c_in, middle, 1))
            y = net.relu(net.conv(y, middle, middle, 3, stride))
            y = net.conv(y, middle, 4 * middle, 1, gain=0.3)
            short = x if i > 0 else net.conv(x, c_in, 4 * middle, 1, stride)
            x, c_in = net.relu(net.add(y, short)), 4 * middle
    return classify(net, x, 2048, 1000)


def mobilenet_v2(net):
    """Sandler et al., arXiv:1801.04381, table 2, width 1."""
    x = net.relu6(net.conv(net.input(1, 3, 224, 224), 3, 32, 3, 2))
    c_in = 32
    for t, c_out, n, s in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                           (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for i in range(n):
            y, hidden, stride = x, t * c_in, s if i == 0 else 1
            if t > 1:
                y = net.relu6(net.conv(y, c_in, hidden, 1))
            y = net.relu6(net.conv(y, hidden, hidden, 3, stride, groups=hidden))
            residual = stride == 1 and c_in == c_out
            y = net.conv(y, hidden, c_out, 1, gain=0.5 if residual else 1.0)
            x, c_in = net.add(x, y) if residual else y, c_out
    return classify(net, net.relu6(net.conv(x, 320, 1280, 1)), 1280, 1000)


def layer(net, height, width, c_in, c_out, kernel, groups=1):
    return net.conv(net.input(1, c_in, height, width), c_in, c_out, kernel, groups=groups)


NETS = {
    "fsrcnn_x2": lambda n: fsrcnn(n, 2),
    "fsrcnn_x3": lambda n: fsrcnn(n, 3),
    "fsrcnn_x4": lambda n: fsrcnn(n, 4),
    "wdsr_b16x5_x2": lambda n: wdsr(n, wdsr_b_block),
    "wdsr_a16x5_x2": lambda n: wdsr(n, wdsr_a_block),
    "resnet20_cifar": lambda n: resnet_cifar(n, 3),
    "resnet56_cifar": lambda n: resnet_cifar(n, 9),
    "mobilenetv2_224": mobilenet_v2,
    "resnet50_224": resnet50,
    "c3_16_16_640x360": lambda n: layer(n, 360, 640, 16, 16, 3),
    "c3_64_64_56": lambda n: layer(n, 56, 56, 64, 64, 3),
    "c1_256_64_56": lambda n: layer(n, 56, 56, 256, 64, 1),
    "c1_576_96_14": lambda n: layer(n, 14, 14, 576, 96, 1),
    "dw3_144_56": lambda n: layer(n, 56, 56, 144, 144, 3, groups=144),
}


def write(folder, name):
    """Writes NAME.onnx; returns its entry of nets.json."""
    net = Net(name, seed=list(NETS).index(name) + 1)
    inferred = net.save(os.path.join(folder, name + ".onnx"), NETS[name](net))
    return {"gflop": 2e-9 * direct_macs(inferred)}


def main():
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(NETS):
        sys.exit(f"usage: nets.py FOLDER [NAME...]; names: {' '.join(NETS)}")
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    entries = {name: write(folder, name) for name in sys.argv[2:] or NETS}
    with open(os.path.join(folder, "nets.json"), "w", encoding="utf-8") as file:
        json.dump(entries, file, indent=1)


if __name__ == "__main__":
    main()
