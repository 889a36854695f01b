"""quantized.py - 8-bit networks in QDQ form, as onnxruntime's quantizer writes them from the fp32 files.

    quantized.py SOURCE.onnx TARGET.onnx [--reduce-range]      writes TARGET unless it was made from the same SOURCE by the
                                                               same script; --reduce-range: weights of 7 bits

Weights are symmetric int8 with a scale for each output channel, activations uint8 with a zero point, biases int32; ranges
are the smallest and largest values over a few seeded images. A transposed convolution becomes a convolution to the
pixels of a block and DepthToSpace first: onnxruntime has no integer kernel for the former, and all engines are to run the
same network. PRelu and DepthToSpace stay in float: the quantizer does not know them.
"""

import argparse
import hashlib
import logging
import os
import tempfile
import warnings

import numpy as np
import onnx
from onnx import helper, numpy_helper

CALIBRATION_SEEDS = (11, 12, 13)
SOURCE_KEY = "source"


def image(shape, seed):
    """[N,C,H,W] in [0, 1] with the spectrum of photographs (amplitude 1/frequency) and a few edges."""
    rng = np.random.default_rng(seed)
    height, width = shape[-2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None, :] * width)
    noise = np.fft.rfft2(rng.standard_normal(shape)) / np.maximum(frequency, 1)
    x = np.fft.irfft2(noise, s=(height, width))
    x /= np.maximum(x.std(axis=(-2, -1), keepdims=True), 1e-6) * 5
    x += rng.uniform(0.35, 0.65, (*shape[:-2], 1, 1))
    for _ in range(3):
        top, left = rng.integers(0, height), rng.integers(0, width)
        x[..., top:top + height // 3, left:left + width // 3] += rng.uniform(-0.4, 0.4)
    return np.clip(x, 0, 1).astype(np.float32)


def input_shape(model):
    return [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]


# ---- transposed convolutions -----------------------------------------------------------------------------------------


def pixel_taps(kernel, stride, pad):
    """First and last input pixel, relative to the block of output pixels, that a tap of any of them reads."""
    return -((kernel - 1 - pad) // stride), (stride - 1 + pad) // stride


def to_pixels(weight, stride, pad):
    """Weights [I,O,K,K] of a transposed convolution as those of a convolution to O*stride*stride channels."""
    c_in, c_out, kernel, _ = weight.shape
    first, last = pixel_taps(kernel, stride, pad)
    out = np.zeros((c_out, stride, stride, c_in, last - first + 1, last - first + 1), weight.dtype)
    for index in np.ndindex(*out.shape[1:3], *out.shape[4:]):
        k = [r + pad - stride * (j + first) for r, j in zip(index[:2], index[2:])]
        if all(0 <= v < kernel for v in k):
            out[:, index[0], index[1], :, index[2], index[3]] = weight[:, :, k[0], k[1]].T
    return out.reshape(-1, *out.shape[3:])


def replace_transposed(model):
    """Each ConvTranspose as Conv and DepthToSpace; square ones whose output is the input times the stride."""
    weights = {w.name: w for w in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "ConvTranspose":
            nodes.append(node)
            continue
        a = {x.name: helper.get_attribute_value(x) for x in node.attribute}
        stride, pad, kernel = a["strides"][0], a["pads"][0], a["kernel_shape"][0]
        if a["output_padding"][0] != stride - kernel + 2 * pad:
            raise ValueError(f"{node.name}: output is not {stride} times the input")
        first, last = pixel_taps(kernel, stride, pad)
        weight = weights[node.input[1]]
        weight.CopyFrom(numpy_helper.from_array(to_pixels(numpy_helper.to_array(weight), stride, pad), weight.name))
        bias = weights[node.input[2]]
        bias.CopyFrom(numpy_helper.from_array(np.repeat(numpy_helper.to_array(bias), stride**2), bias.name))
        inside = node.output[0] + "_pixels"
        nodes += [helper.make_node("Conv", node.input, [inside], node.name, kernel_shape=[last - first + 1] * 2,
                                   strides=[1, 1], group=1, dilations=[1, 1], pads=[-first] * 2 + [last] * 2),
                  helper.make_node("DepthToSpace", [inside], node.output, node.name + "_shuffle", blocksize=stride,
                                   mode="CRD")]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


# ---- quantizing ------------------------------------------------------------------------------------------------------


def quantize(source, target, images, **options):
    """SOURCE (path or model) to the file TARGET, calibrated on `images`; options are those of quantize_static."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self):
            self.rest = iter(images)

        def get_next(self):
            x = next(self.rest, None)
            return None if x is None else {"input": x}

    how = {"quant_format": q.QuantFormat.QDQ, "per_channel": True, "activation_type": q.QuantType.QUInt8,
           "weight_type": q.QuantType.QInt8, "calibrate_method": q.CalibrationMethod.MinMax} | options
    logging.disable(logging.WARNING)  # it recommends a preprocessing that these files do not need
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        q.quantize_static(source, target, Reader(), **how)
    logging.disable(logging.NOTSET)


def output_step(model):
    """Scale of the quantization of the output, None when it is computed in float."""
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {w.name: w for w in model.graph.initializer}
    node = makers[model.graph.output[0].name]
    while node.op_type in ("DepthToSpace", "Flatten", "Reshape"):  # move values, do not change them
        node = makers[node.input[0]]
    return float(numpy_helper.to_array(weights[node.input[1]])) if node.op_type == "DequantizeLinear" else None


def source_key(source, reduce_range):
    digest = hashlib.sha256(str(reduce_range).encode())
    for path in (source, __file__):
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def is_current(target, key):
    if not os.path.exists(target):
        return False
    return any(p.key == SOURCE_KEY and p.value == key for p in onnx.load(target).metadata_props)


def main():
    parser = argparse.ArgumentParser(description="an fp32 network in 8 bits")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--reduce-range", action="store_true", help="weights of 7 bits")
    options = parser.parse_args()
    key = source_key(options.source, options.reduce_range)
    if is_current(options.target, key):
        return
    model = replace_transposed(onnx.load(options.source))
    images = [image(input_shape(model), seed) for seed in CALIBRATION_SEEDS]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "quantized.onnx")
        quantize(model, path, images, reduce_range=options.reduce_range)
        model = onnx.load(path)
    helper.set_model_props(model, {SOURCE_KEY: key})
    onnx.save(model, options.target)


if __name__ == "__main__":
    main()
