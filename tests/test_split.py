"""Networks in two halves: together they are the network, and what cannot be cut is left whole."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import attar
import toy_bundle
from attar.codec.split import Halves, split

node = helper.make_node
F = TensorProto.FLOAT
HEAVY = node("MatMul", ["image", "weights"], ["a"])


def model(nodes: list, **constants: np.ndarray) -> bytes:
    """A graph of image, float (2, 3), and quality, float (2,), to y."""
    weights = {"weights": np.arange(9, dtype=np.float32).reshape(3, 3)} | constants
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", F, [2, 3]), helper.make_tensor_value_info("quality", F, [2])],
        [helper.make_tensor_value_info("y", F, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(made.SerializeToString())


def run(data: bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {item.name: inputs[item.name] for item in session.get_inputs()})


def in_two(halves: Halves, inputs: dict[str, np.ndarray]) -> np.ndarray:
    early = {name: value for name, value in inputs.items() if name != "quality"}
    session = onnxruntime.InferenceSession(halves.early, providers=["CPUExecutionProvider"])
    cut = dict(zip(halves.cut, session.run(None, early), strict=True))
    late = halves.late([item.type for item in session.get_outputs()])
    assert late is not None
    (result,) = run(late, inputs | cut)
    return result


def check(data: bytes, inputs: dict[str, np.ndarray], cut: set[str]) -> None:
    halves = split(data, "quality")
    assert halves is not None
    assert set(halves.cut) == cut
    for half in (halves.early, halves.late(["tensor(float)"] * len(halves.cut))):
        onnx.load_model_from_string(half)
        assert len(half) < len(data)
    np.testing.assert_array_equal(in_two(halves, inputs), run(data, inputs)[0])


def test_a_gain_at_the_end_is_all_that_is_done_again() -> None:
    inputs = {
        "image": toy_bundle.photo(48, 64)[None],
        "quality": np.array([0.3], np.float32),
    }
    check(toy_bundle.rated_graphs()["analysis"], inputs, {"plain"})


def test_the_shipped_photo_codec_is_cut_behind_its_last_convolution() -> None:
    graphs = attar.load("photo").bundle.graphs
    image = toy_bundle.photo(64, 128)[None]
    halves = split(graphs["analysis"], "quality")
    assert halves is not None
    assert len(halves.early) > 0.95 * len(graphs["analysis"])
    for level in (0, 0.4, 1):
        inputs = {"image": image, "quality": np.array([level], np.float32)}
        np.testing.assert_allclose(in_two(halves, inputs), run(graphs["analysis"], inputs)[0], rtol=1e-5)


VALUES = {"image": np.ones((2, 3), np.float32), "quality": np.array([0.5, 2], np.float32)}
LAST = node("Mul", ["a", "gain"], ["y"])
GAIN = node("Unsqueeze", ["quality", "one"], ["gain"])
ONE = np.array([1], np.int64)


def test_constants_that_are_computed_go_where_they_are_used() -> None:
    doubled = node("Add", ["weights", "weights"], ["twice"])
    again = node("MatMul", ["a", "twice"], ["b"])
    late = node("MatMul", ["c", "twice"], ["y"])
    nodes = [doubled, HEAVY, again, GAIN, node("Mul", ["b", "gain"], ["c"]), late]
    check(model(nodes, one=ONE), VALUES, {"b"})


def test_sizes_are_handed_over_too() -> None:
    nodes = [HEAVY, node("Shape", ["a"], ["size"]), GAIN, node("Mul", ["a", "gain"], ["c"])]
    data = model([*nodes, node("Reshape", ["c", "size"], ["y"])], one=ONE)
    halves = split(data, "quality")
    assert halves is not None
    assert set(halves.cut) == {"a", "size"}
    np.testing.assert_array_equal(in_two(halves, VALUES), run(data, VALUES)[0])
    assert halves.late(["tensor(string)", "tensor(float)"]) is None


def branch() -> onnx.NodeProto:
    """An If whose branches read a tensor from outside."""
    body = helper.make_graph(
        [node("Mul", ["a", "gain"], ["z"])], "body", [], [helper.make_tensor_value_info("z", F, None)]
    )
    return node("If", ["yes"], ["y"], then_branch=body, else_branch=body)


WHOLE = {
    "without the input": toy_bundle.digits_graphs()["analysis"],
    "used at the start": model(
        [GAIN, node("Mul", ["image", "gain"], ["b"]), node("MatMul", ["b", "weights"], ["y"])], one=ONE
    ),
    "nothing heavy before": model([node("Relu", ["image"], ["a"]), GAIN, LAST], one=ONE),
    "not used": model([node("MatMul", ["image", "weights"], ["y"])]),
    "image used again": model(
        [HEAVY, GAIN, node("Mul", ["a", "gain"], ["b"]), node("Add", ["b", "image"], ["y"])], one=ONE
    ),
    "branches": model([HEAVY, GAIN, branch()], one=ONE, yes=np.array(True)),
    "out of order": model([LAST, HEAVY, GAIN], one=ONE),
    "twice of one name": model([HEAVY, HEAVY, GAIN, LAST], one=ONE),
    "empty": b"",
    "no model": b"\xff" * 100,
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE.keys())
def test_what_is_not_cut(data: bytes) -> None:
    assert split(data, "quality") is None


def test_damaged_models_are_left_to_whoever_runs_them() -> None:
    data = model([HEAVY, GAIN, LAST], one=ONE)
    assert split(data, "quality") is not None
    for place in range(len(data)):
        split(data[:place], "quality")
        for bit in (0, 3, 7):
            split(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :], "quality")
