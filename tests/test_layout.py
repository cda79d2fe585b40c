"""attar.train.layout: exported graphs that compute the same without reordering between convolutions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from attar import spec as specs
from attar.train import export_hyper, graphs, layout, network

TINY = Path(__file__).parent / "data" / "tiny_photo.json"
FLOATS = ("analysis", "hyper_analysis", "hyper_means", "context_means", "synthesis")


def kinds(graph: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


@pytest.fixture(scope="module")
def exported() -> dict[str, tuple[bytes, list[list[np.ndarray]]]]:
    """Graphs of a photo codec's float networks, with what real images lead to."""
    net = network.build(specs.load(TINY), seed=2, dtype="float32")
    rng = np.random.default_rng(0)
    multiple = network.geometry(net).multiple
    batches = [rng.integers(0, 256, (2, n * multiple, 2 * multiple, 3), np.uint8) for n in (1, 3)]
    given = export_hyper._inputs(net, batches)
    return {
        name: (export_hyper.to_onnx(net.parts[name], given[name][0], name), given[name]) for name in FLOATS
    }


@pytest.mark.parametrize("name", FLOATS)
def test_a_network_computes_the_same_in_blocks(exported: dict, name: str) -> None:
    graph, given = exported[name]
    rewritten = graphs.folded(layout.blocked(graph))
    for values in given:
        expected, found = graphs.run(graph, values), graphs.run(rewritten, values)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))
    before, after = kinds(graph), kinds(rewritten)
    assert before["Split"] > 0
    assert after["Split"] == 0
    assert after["Conv"] >= before["Conv"] + 2 * before["Split"]


def test_nothing_is_reordered_between_the_blocks_of_a_trunk(exported: dict) -> None:
    # Ends of the network and both sides of each pixel shuffle: no Transpose stands anywhere else.
    graph, _ = exported["synthesis"]
    nodes = onnx.load_from_string(graphs.folded(layout.blocked(graph))).graph.node
    sums = {name for node in nodes if node.op_type == "Add" for name in (*node.input, *node.output)}
    moves = [node for node in nodes if node.op_type == "Transpose" and sums.intersection(node.input)]
    shuffles = [node for node in nodes if node.op_type == "Reshape"]
    assert len(moves) <= 1 + len(shuffles) // 2


def branch(shared: bool) -> bytes:
    """A gated block as ONNX; ``shared``: what is split is an output as well."""
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.normal(size=(8, 4, 1, 1)),
        "b": rng.normal(size=8),
        "d": rng.normal(size=(8, 1, 3, 3)),
        "sizes": np.array([4, 4]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["wide"]),
        helper.make_node("Conv", ["wide", "d"], ["spread"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Split", ["spread", "sizes"], ["content", "gate"], axis=1),
        helper.make_node("Sigmoid", ["gate"], ["open"]),
        helper.make_node("Mul", ["content", "open"], ["y"]),
    ]
    made = ["y", "spread"] if shared else ["y"]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6, 5])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made],
        [
            numpy_helper.from_array(value.astype(np.int64 if name == "sizes" else np.float32), name)
            for name, value in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("shared", [False, True])
def test_only_what_nobody_else_reads_is_parted(shared: bool) -> None:
    graph = branch(shared)
    rewritten = layout.blocked(graph)
    assert kinds(rewritten)["Split"] == int(shared)
    x = [np.random.default_rng(2).normal(size=(1, 4, 6, 5)).astype(np.float32)]
    np.testing.assert_allclose(graphs.run(rewritten, x), graphs.run(graph, x), atol=1e-6)
