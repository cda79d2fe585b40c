"""Count the multiply-accumulates per pixel of every network of a bundle, from its ONNX graphs.

``python benchmarks/macs.py BUNDLE [HEIGHT WIDTH]``: counted are Conv, ConvTranspose, MatMul and Gemm, at the shapes
that ONNX's shape inference gives for an image of this size.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime

from attar.codec import bundle
from attar.codec.manifest import HYPER_PASSES, Hyperprior, Manifest

ENCODER_ONLY = ("analysis", "hyper_analysis")


def inputs(manifest: Manifest, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """Shape of every input that a network of the bundle may have, without its channels where the graph knows them."""
    stride = manifest.latent.stride or height
    shapes = {"image": (1, height, width, manifest.channels), "quality": (1,)}
    latent = (1, height // stride, width // stride)
    for name in ("latent", "symbols", "scales", "means", "found"):
        shapes[name] = latent
    if isinstance(manifest.entropy, Hyperprior):
        stride = manifest.entropy.stride
        shapes["hyper_symbols"] = shapes["known"] = (1, height // stride, width // stride)
    return shapes


def macs(graph: bytes, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates of one run of a graph, from the shapes that its tensors really have."""
    model = onnx.load_from_string(graph)
    counted = [n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm")]
    known = {item.name for item in model.graph.output}
    wanted = {name for n in counted for name in (n.input[0], n.output[0])}
    weights = {item.name: list(item.dims) for item in model.graph.initializer}
    for node in model.graph.node:  # weights that are stored in half precision stand behind a Cast
        if node.op_type == "Cast" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    given = {item.name for item in model.graph.input}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(wanted - known - given))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {}
    for item in session.get_inputs():
        shape = shapes[item.name]
        shape = shape if len(shape) == len(item.shape) else (*shape, item.shape[-1])
        feeds[item.name] = np.zeros(shape, np.uint8 if item.type == "tensor(uint8)" else np.float32)
    names = [item.name for item in session.get_outputs()]
    found = {name: value.shape for name, value in zip(names, session.run(names, feeds), strict=True)}
    found |= {name: value.shape for name, value in feeds.items()}
    total = 0
    for node in counted:
        kernel = weights[node.input[1]]
        if node.op_type == "Conv":
            total += math.prod(found[node.output[0]]) * math.prod(kernel[1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(found[node.input[0]]) * math.prod(kernel[1:])
        else:
            total += math.prod(found[node.output[0]]) * found[node.input[0]][-1]
    return total


def totals(found: bundle.Bundle, height: int, width: int) -> dict[str, int]:
    """Multiply-accumulates of every network for one image, whose size needs no padding."""
    shapes = inputs(found.manifest, height, width)
    runs = {"hyper_prior": HYPER_PASSES}
    return {name: runs.get(name, 1) * macs(graph, shapes) for name, graph in found.graphs.items()}


def main(path: str, height: int = 512, width: int = 768) -> None:
    found = bundle.read(bundle.find(path))
    if found.manifest.size is not None:
        height, width = found.manifest.size
    height, width = found.manifest.padded_size(height, width)
    decoder = encoder = 0.0
    for name, total in totals(found, height, width).items():
        count = total / (height * width) / 1000
        encoder += count if name != "synthesis" else 0
        decoder += count if name not in ENCODER_ONLY else 0
        print(f"{name:<16} {count:8.3f} kMAC/pixel  {len(found.graphs[name]) / 1e6:7.3f} MB")
    print(f"{'to encode':<16} {encoder:8.3f} kMAC/pixel\n{'to decode':<16} {decoder:8.3f} kMAC/pixel")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 4):
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:]))
