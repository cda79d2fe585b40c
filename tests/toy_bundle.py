"""Small, real codecs for tests: a linear transform (DCT) written as ONNX graphs, with a Laplacian prior."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from attar.codec import bundle
from attar.codec.bundle import Latent, Manifest
from attar.codec.tables import Table

IR_VERSION = 10
OPSETS = [helper.make_opsetid("", 17)]
F, U = TensorProto.FLOAT, TensorProto.UINT8


def dct(size: int) -> NDArray[np.float64]:
    """Orthonormal DCT-II: row k is the k-th basis function."""
    k, x = np.mgrid[:size, :size]
    basis = np.cos(np.pi * (2 * x + 1) * k / (2 * size)) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def low_frequencies(size: int, count: int) -> NDArray[np.float64]:
    """The ``count`` two-dimensional basis images (count, size, size) of lowest frequency."""
    rows, columns = np.divmod(np.arange(size * size), size)
    order = np.argsort(rows + columns, kind="stable")[:count]
    one = dct(size)
    return one[rows[order]][:, :, None] * one[columns[order]][:, None, :]


def laplacian_table(scale: float, minimum: int = -20, maximum: int = 20) -> Table:
    values = np.arange(minimum, maximum + 1)
    return Table.from_probabilities(minimum, np.append(np.exp(-np.abs(values) / scale), 1e-5))


def _model(
    nodes: list, inputs: list, outputs: list, weights: dict[str, NDArray], *, extra: bytes = b""
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)
    return model.SerializeToString() + extra


def digits_graphs(channels: int = 50, size: int = 28, step: float = 0.35) -> dict[str, bytes]:
    basis = low_frequencies(size, channels).reshape(channels, -1).astype(np.float32)
    node = helper.make_node
    analysis = _model(
        [
            node("Cast", ["image"], ["float"], to=F),
            node("Mul", ["float", "scale"], ["unit"]),
            node("Reshape", ["unit", "flat"], ["vector"]),
            node("MatMul", ["vector", "weights"], ["latent"]),
        ],
        [("image", U, ["B", size, size, 1])],
        [("latent", F, ["B", channels])],
        {
            "scale": np.float32(1 / 255),
            "flat": np.array([-1, size * size], np.int64),
            "weights": basis.T / np.float32(step),
        },
    )
    synthesis = _model(
        [
            node("MatMul", ["symbols", "weights"], ["vector"]),
            node("Reshape", ["vector", "shape"], ["grid"]),
            node("Clip", ["grid", "zero", "one"], ["image"]),
        ],
        [("symbols", F, ["B", channels])],
        [("image", F, ["B", size, size, 1])],
        {
            "weights": basis * np.float32(step),
            "shape": np.array([-1, size, size, 1], np.int64),
            "zero": np.float32(0),
            "one": np.float32(1),
        },
    )
    return {"analysis": analysis, "synthesis": synthesis}


def photo_graphs(per_colour: int = 10, stride: int = 8, step: float = 0.06) -> dict[str, bytes]:
    """Block DCT of each colour as strided convolutions; any size that is a multiple of ``stride``."""
    basis = low_frequencies(stride, per_colour)
    kernels = np.zeros((3 * per_colour, 3, stride, stride), np.float32)
    for colour in range(3):
        kernels[colour * per_colour : (colour + 1) * per_colour, colour] = basis
    node = helper.make_node
    channels = 3 * per_colour
    analysis = _model(
        [
            node("Cast", ["image"], ["float"], to=F),
            node("Mul", ["float", "scale"], ["unit"]),
            node("Sub", ["unit", "half"], ["centred"]),
            node("Transpose", ["centred"], ["first"], perm=[0, 3, 1, 2]),
            node("Conv", ["first", "weights"], ["coded"], strides=[stride, stride]),
            node("Transpose", ["coded"], ["latent"], perm=[0, 2, 3, 1]),
        ],
        [("image", U, ["B", "H", "W", 3])],
        [("latent", F, ["B", "h", "w", channels])],
        {
            "scale": np.float32(1 / 255),
            "half": np.float32(0.5),
            "weights": kernels / np.float32(step),
        },
    )
    synthesis = _model(
        [
            node("Transpose", ["symbols"], ["first"], perm=[0, 3, 1, 2]),
            node("ConvTranspose", ["first", "weights"], ["centred"], strides=[stride, stride]),
            node("Add", ["centred", "half"], ["unit"]),
            node("Clip", ["unit", "zero", "one"], ["clipped"]),
            node("Transpose", ["clipped"], ["image"], perm=[0, 2, 3, 1]),
        ],
        [("symbols", F, ["B", "h", "w", channels])],
        [("image", F, ["B", "H", "W", 3])],
        {
            "weights": kernels * np.float32(step),
            "half": np.float32(0.5),
            "zero": np.float32(0),
            "one": np.float32(1),
        },
    )
    return {"analysis": analysis, "synthesis": synthesis}


def rated_graphs() -> dict[str, bytes]:
    """Those of :func:`photo_graphs`, with a gain at the latent that follows the input ``quality``."""
    node, graphs = helper.make_node, {}
    for name, data in photo_graphs().items():
        model = ModelProto.FromString(data)
        graph = model.graph
        gain = [
            node("Mul", ["quality", "slope"], ["rise"]),
            node("Exp", ["rise"], ["flat_gain"]),
            node("Reshape", ["flat_gain", "four"], ["gain"]),
        ]
        first, last = graph.node[0], graph.node[-1]
        if name == "analysis":
            last.output[0] = "plain"
            graph.node.extend([*gain, node("Mul", ["plain", "gain"], ["latent"])])
        else:
            first.input[0] = "plain"
            rest = [*gain, node("Div", ["symbols", "gain"], ["plain"]), *graph.node]
            del graph.node[:]
            graph.node.extend(rest)
        graph.input.append(helper.make_tensor_value_info("quality", F, ["B"]))
        for key, value in {"slope": np.float32(1.5), "four": np.array([-1, 1, 1, 1], np.int64)}.items():
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), key))
        graphs[name] = model.SerializeToString()
    return graphs


def digits_manifest(**changes: object) -> Manifest:
    fields: dict = {
        "name": "toy-digits",
        "version": "1",
        "licence": "CC0-1.0",
        "channels": 1,
        "size": (28, 28),
        "latent": Latent(channels=50),
        "description": "low DCT frequencies of 28 x 28 gray images",
    }
    return Manifest(**(fields | changes))


def photo_manifest(**changes: object) -> Manifest:
    fields: dict = {
        "name": "toy-photo",
        "version": "1",
        "licence": "CC0-1.0",
        "channels": 3,
        "multiple": 8,
        "latent": Latent(channels=30, stride=8),
        "description": "low DCT frequencies of 8 x 8 blocks",
    }
    return Manifest(**(fields | changes))


def digits_tables(channels: int = 50) -> list[Table]:
    return [laplacian_table(6 / (1 + 0.1 * position)) for position in range(channels)]


def photo_tables() -> list[Table]:
    one = [laplacian_table(8.0, -150, 150), *(laplacian_table(2 / (1 + 0.3 * k)) for k in range(9))]
    return one * 3


def write_digits(path: Path) -> str:
    return bundle.write(path, manifest=digits_manifest(), graphs=digits_graphs(), tables=digits_tables())


def write_photo(path: Path) -> str:
    return bundle.write(path, manifest=photo_manifest(), graphs=photo_graphs(), tables=photo_tables())


def write_rated(path: Path) -> str:
    """A codec of variable rate, 1 to 100."""
    manifest = photo_manifest(name="toy-rated", qualities=(1, 100))
    return bundle.write(path, manifest=manifest, graphs=rated_graphs(), tables=photo_tables())


def digit(seed: int = 0) -> NDArray[np.uint8]:
    """A 28 x 28 drawing: a few thick random strokes on black."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:28, :28]
    ink = np.zeros((28, 28))
    points = rng.uniform(6, 22, (4, 2))
    for start, end in itertools.pairwise(points):
        along = np.clip(
            ((y - start[0]) * (end - start)[0] + (x - start[1]) * (end - start)[1])
            / ((end - start) ** 2).sum(),
            0,
            1,
        )
        distance = np.hypot(y - start[0] - along * (end - start)[0], x - start[1] - along * (end - start)[1])
        ink = np.maximum(ink, np.clip(2.5 - distance, 0, 1))
    return np.rint(255 * ink).astype(np.uint8)


def photo(height: int = 45, width: int = 70, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth RGB picture with some texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [
        128
        + 60 * np.sin(x / rng.uniform(5, 20) + y / rng.uniform(8, 30))
        + 30 * np.cos(y / rng.uniform(4, 9))
        for _ in range(3)
    ]
    return np.clip(np.stack(waves, -1) + rng.normal(0, 3, (height, width, 3)), 0, 255).astype(np.uint8)
