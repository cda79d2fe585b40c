"""The reach of networks, against arithmetic by hand and against what changes when a pixel changes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import toy_bundle
from attar.codec.onnxfile import read_graph
from attar.codec.reach import Reach, UnboundedError, reach_of
from attar.errors import BundleError

node = helper.make_node
FIRST = node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2])


def model(nodes: list, constants: dict[str, np.ndarray] | None = None, output: str = "y") -> bytes:
    """A graph of one input x, float (1, H, W, 2)."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "H", "W", 2])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(made.SerializeToString())


def reach(data: bytes, unit: int = 8) -> Reach:
    return reach_of(read_graph(data, "test"), unit)


def kernel(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 1, shape).astype(np.float32)


def last(name: str) -> onnx.NodeProto:
    return node("Transpose", [name], ["y"], perm=[0, 2, 3, 1])


def shuffle(name: str, out: str, factor: int) -> list:
    """PixelShuffle as Keras writes it, of (1, H, W, C) with a height and width that are read from the tensor."""
    return [
        node("Shape", [name], [f"{out}_shape"]),
        node("Gather", [f"{out}_shape", "one"], [f"{out}_h"]),
        node("Gather", [f"{out}_shape", "two"], [f"{out}_w"]),
        node("Concat", ["one", f"{out}_h", f"{out}_w", "n", "n", "minus"], [f"{out}_six"], axis=0),
        node("Reshape", [name, f"{out}_six"], [f"{out}_split"]),
        node("Transpose", [f"{out}_split"], [f"{out}_moved"], perm=[0, 1, 3, 2, 4, 5]),
        node("Mul", [f"{out}_h", "n"], [f"{out}_hh"]),
        node("Mul", [f"{out}_w", "n"], [f"{out}_ww"]),
        node("Concat", ["one", f"{out}_hh", f"{out}_ww", "minus"], [f"{out}_four"], axis=0),
        node("Reshape", [f"{out}_moved", f"{out}_four"], [out]),
    ]


NUMBERS = {
    name: np.array([value], np.int64) for name, value in (("one", 1), ("two", 2), ("n", 2), ("minus", -1))
}


def test_convolutions_by_hand() -> None:
    data = model(
        [
            FIRST,
            node("Conv", ["a", "k5"], ["b"], strides=[2, 1], pads=[2, 1, 2, 1], dilations=[1, 1]),
            node("Relu", ["b"], ["c"]),
            node("Conv", ["c", "k3"], ["d"], pads=[2, 1, 2, 1], dilations=[2, 1], group=2),
            last("d"),
        ],
        {"k5": kernel(2, 2, 5, 3), "k3": kernel(2, 1, 3, 3)},
    )
    found = reach(data)
    assert (found.rows.stride, found.rows.low, found.rows.high) == (2, -2 - 4, 2 + 4)
    assert (found.columns.stride, found.columns.low, found.columns.high) == (1, -2, 2)
    assert found.period == (2, 1)
    assert found.window(0, 10, 20, 1000) == (14, 46, 7)
    assert found.window(0, 0, 3, 1000) == (0, 12, 0)
    assert found.window(0, 490, 500, 1000) == (974, 1000, 487)
    assert found.window(1, 0, 1, 8) == (0, 3, 0)


def test_transposed_convolutions_and_shuffles_by_hand() -> None:
    data = model(
        [FIRST, node("ConvTranspose", ["a", "k"], ["b"], strides=[2, 2], pads=[1, 1, 1, 1]), last("b")],
        {"k": kernel(2, 4, 4, 4)},
    )
    found = reach(data)
    assert (found.rows.stride, found.rows.low, found.rows.high) == (Fraction(1, 2), -1, Fraction(1, 2))
    data = model(
        [
            FIRST,
            node("Conv", ["a", "k"], ["b"]),
            node("Transpose", ["b"], ["c"], perm=[0, 2, 3, 1]),
            *shuffle("c", "y", 2),
        ],
        {"k": kernel(8, 2, 1, 1)} | NUMBERS,
    )
    found = reach(data)
    assert (found.rows.stride, found.rows.low, found.rows.high) == (Fraction(1, 2), Fraction(-1, 2), 0)
    assert found.window(0, 6, 8, 100) == (2, 5, 4)  # rounded outwards


GLOBAL = {
    "ReduceMean: looks at all": [node("ReduceMean", ["x"], ["m"], axes=[1]), node("Add", ["x", "m"], ["y"])],
    "nothing is known of the operator GlobalAveragePool": [FIRST, node("GlobalAveragePool", ["a"], ["y"])],
    "nothing is known of the operator test.Strange": [node("Strange", ["x"], ["y"], domain="test")],
    "Add: values that depend on the size": [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "one"], ["h"]),
        node("Cast", ["h"], ["f"], to=TensorProto.FLOAT),
        node("Add", ["x", "f"], ["y"]),
    ],
    "MatMul: rows or columns summed up": [node("MatMul", ["a", "w"], ["y"]), FIRST][::-1],
    "Add: rows or columns with something else": [node("Add", ["x", "grid"], ["y"])],
    "Reshape: rows or columns mixed": [node("Reshape", ["x", "flat"], ["y"])],
    "Conv: rows or columns as channels": [node("Conv", ["x", "k"], ["y"])],
    "Slice: skips rows": [node("Slice", ["x", "zero", "large", "one", "two"], ["y"])],
    "Concat: joins along rows": [node("Concat", ["x", "x"], ["y"], axis=1)],
    "Concat: more than 256 sizes": [
        node("Concat", ["one"] * 2, ["s1"], axis=0),
        *(node("Concat", [f"s{k}"] * 2, [f"s{k + 1}"], axis=0) for k in range(1, 60)),
        node("Identity", ["x"], ["y"]),
    ],
    "its output has no rows and columns": [FIRST, node("Identity", ["a"], ["y"])],
    "sizes that do not follow": [FIRST, node("Conv", ["a", "k3"], ["b"]), last("b")],
    "Pad: padding that mirrors": [node("Pad", ["x", "pads"], ["y"], mode="reflect")],
    "Conv: padding that is left": [FIRST, node("Conv", ["a", "k3"], ["b"], auto_pad="SAME_UPPER"), last("b")],
}


@pytest.mark.parametrize("reason", GLOBAL)
def test_what_may_see_everything_is_unbounded(reason: str) -> None:
    numbers = {"zero": [0], "one": [1], "two": [2], "large": [1 << 40], "flat": [1, -1, 1, 2]}
    constants = {name: np.array(value, np.int64) for name, value in numbers.items()}
    constants["pads"] = np.array([0, 1, 1, 0, 0, 1, 1, 0], np.int64)
    constants |= {
        "k": kernel(2, 2, 1, 1),
        "k3": kernel(2, 2, 3, 3),
        "w": kernel(5, 5),
        "grid": kernel(37 * 8, 41 * 8, 1),
    }
    with pytest.raises(UnboundedError, match=reason):
        reach(model(GLOBAL[reason], constants))


def test_a_network_that_halves_more_often_than_images_allow_is_unbounded() -> None:
    halving = [FIRST, node("Conv", ["a", "k"], ["b"], strides=[2, 2]), last("b")]
    assert reach(model(halving, {"k": kernel(2, 2, 2, 2)}), unit=2).period == (2, 2)
    with pytest.raises(UnboundedError, match="sizes that do not follow"):
        reach(model(halving, {"k": kernel(2, 2, 2, 2)}), unit=3)


def test_damaged_graphs_are_refused_by_name() -> None:
    data = toy_bundle.photo_graphs()["analysis"]
    with pytest.raises(BundleError, match=r"^x: not an ONNX file, or damaged"):
        read_graph(data[: len(data) // 2], "x")


@st.composite
def networks(draw: st.DrawFn) -> tuple[bytes, int]:
    """A network of convolutions, transposed ones and shuffles, and what its sizes must be a multiple of."""
    nodes, constants, channels = [FIRST], dict(NUMBERS), 2
    name = "a"
    for number in range(draw(st.integers(1, 4))):
        out = f"t{number}"
        kind = draw(st.sampled_from(["Conv", "Conv", "down", "up", "shuffle", "pool"]))
        size, dilation = draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 2]))
        if kind == "Conv":
            pad = [size // 2 * dilation] * 4
            nodes.append(node("Conv", [name, f"k{number}"], [out], pads=pad, dilations=[dilation] * 2))
            constants[f"k{number}"] = kernel(2, channels, size, size)
        elif kind == "down":
            nodes.append(node("Conv", [name, f"k{number}"], [out], strides=[2, 2], pads=[1, 1, 1, 1]))
            constants[f"k{number}"] = kernel(2, channels, 4, 4)
        elif kind == "up":
            nodes.append(
                node("ConvTranspose", [name, f"k{number}"], [out], strides=[2, 2], pads=[1, 1, 1, 1])
            )
            constants[f"k{number}"] = kernel(channels, 2, 4, 4)
        elif kind == "pool":
            nodes.append(node("MaxPool", [name], [out], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        else:
            nodes.append(node("Conv", [name, f"k{number}"], [f"{out}c"]))
            constants[f"k{number}"] = kernel(8, channels, 1, 1)
            nodes.append(node("Transpose", [f"{out}c"], [f"{out}l"], perm=[0, 2, 3, 1]))
            nodes += shuffle(f"{out}l", f"{out}s", 2)
            nodes.append(node("Transpose", [f"{out}s"], [out], perm=[0, 3, 1, 2]))
        name = out
    return model([*nodes, last(name)], constants), 16


@settings(max_examples=40, deadline=None)
@given(networks(), st.integers(0, 5), st.integers(1, 4))
def test_a_window_gives_what_the_whole_gives(made: tuple[bytes, int], start: int, length: int) -> None:
    """For any network: a window suffices, and none of what lies outside of it matters."""
    data, unit = made
    found = reach(data, unit)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).uniform(0, 1, (1, 6 * unit, unit, 2)).astype(np.float32)
    (expected,) = session.run(None, {"x": pixels})
    count = expected.shape[1]
    begin, end = start * count // 6, min(start + length, 6) * count // 6
    first, stop, origin = found.window(0, begin, end, 6 * unit)
    (part,) = session.run(None, {"x": pixels[:, first:stop]})
    assert np.allclose(part[:, begin - origin : end - origin], expected[:, begin:end], rtol=1e-4)
    changed = pixels.copy()
    changed[:, :first] += 1
    changed[:, stop:] -= 1
    (other,) = session.run(None, {"x": changed})
    assert np.allclose(other[:, begin:end], expected[:, begin:end], rtol=1e-4)


def test_a_window_that_is_one_smaller_is_found_out() -> None:
    """The planted fault of the test above: a margin that is too small by one."""
    data = model(
        [FIRST, node("Conv", ["a", "k"], ["b"], pads=[2, 2, 2, 2]), last("b")], {"k": kernel(2, 2, 5, 5)}
    )
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).uniform(0, 1, (1, 40, 8, 2)).astype(np.float32)
    first, stop, origin = reach(data).window(0, 10, 20, 40)
    assert (first, stop, origin) == (8, 22, 8)
    (expected,) = session.run(None, {"x": pixels})
    for window, same in (((8, 22), True), ((9, 22), False), ((8, 21), False)):
        (part,) = session.run(None, {"x": pixels[:, slice(*window)]})
        inside = part[:, 10 - window[0] : 20 - window[0]]
        assert np.allclose(inside, expected[:, 10:20], rtol=1e-4) == same


def test_the_shipped_and_the_frozen_bundles_have_a_known_reach() -> None:
    from attar.codec import bundle

    path = Path(__file__).parent / "vectors" / "v1" / "photo.attarmodel"
    graphs = bundle.read(path).graphs
    analysis, synthesis = (
        reach_of(read_graph(graphs[name], name), unit) for name, unit in (("analysis", 8), ("synthesis", 1))
    )
    assert (analysis.rows.stride, analysis.rows.low, analysis.rows.high) == (8, 0, 7)
    assert synthesis.window(0, 1024, 2048, 1000) == (127, 257, 1016)
