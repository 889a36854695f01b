"""A small network as an ONNX file, written by hand: protobuf is tags, varints and lengths, and the tests need no package."""
import struct


def varint(n):
    out = bytearray()
    while True:
        out.append(n & 127 | (128 if n > 127 else 0))
        n >>= 7
        if not n:
            return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def blob(field, value):
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def ints(name, values):
    return blob(5, blob(1, name) + b"".join(number(8, v) for v in values) + number(20, 7))


def tensor(name, shape, values):
    head = b"".join(number(1, d) for d in shape) + number(2, 1) + blob(8, name)
    return blob(5, head + blob(9, struct.pack(f"<{len(values)}f", *values)))


def image(field, name, channels, height, width):
    dims = b"".join(blob(1, number(1, d)) for d in (1, channels, height, width))
    return blob(field, blob(1, name) + blob(2, blob(1, number(1, 1) + blob(2, dims))))


def write(path, channels=(3, 8, 8, 3), height=24, width=32):
    """3x3 convolutions with ReLU between them; weights by a fixed rule."""
    nodes, weights, last = b"", b"", "x"
    for i, (a, b) in enumerate(zip(channels, channels[1:])):
        out = f"y{i}"
        w = [((k * 7 + i) % 11 - 5) * 0.0625 for k in range(a * b * 9)]
        weights += tensor(f"w{i}", (b, a, 3, 3), w) + tensor(f"b{i}", (b,), [0.125 * (k % 3) for k in range(b)])
        conv = b"".join(blob(1, n) for n in (last, f"w{i}", f"b{i}")) + blob(2, out) + blob(3, f"conv{i}")
        nodes += blob(1, conv + blob(4, "Conv") + ints("pads", (1, 1, 1, 1)) + ints("kernel_shape", (3, 3)))
        last = out
        if i + 2 < len(channels):
            nodes += blob(1, blob(1, out) + blob(2, out + "r") + blob(3, f"relu{i}") + blob(4, "Relu"))
            last = out + "r"
    graph = nodes + blob(2, "tiny") + weights + image(11, "x", channels[0], height, width)
    graph += image(12, last, channels[-1], height, width)
    model = number(1, 8) + blob(8, blob(1, "") + number(2, 13)) + blob(7, graph)
    with open(path, "wb") as f:
        f.write(model)
