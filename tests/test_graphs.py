from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from attar.errors import ExportError
from attar.train import graphs
from attar.train.readback import run_keras
from training_kit import build, convolutional, dense, digits, with_layers

RNG = np.random.default_rng(0)


def names(graph: bytes) -> tuple[str, str]:
    model = onnx.load_from_string(graph)
    return model.graph.input[0].name, model.graph.output[0].name


def shape(value: Any) -> list[int | str]:
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]


def test_a_graph_computes_what_the_model_does_on_any_batch() -> None:
    net = build(dense())
    graph = graphs.to_onnx(net.analysis, digits(1), "latent")
    assert names(graph) == ("image", "latent")
    run = graphs.runner(graph, threads=1)
    for count in (1, 5):
        images = digits(count)
        np.testing.assert_allclose(run(images), run_keras(net.analysis, images), atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (64, 64), (12, 40), (100, 8)])
def test_a_graph_of_open_size_is_right_for_every_size(size: tuple[int, int]) -> None:
    net = build(convolutional())
    images = RNG.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    example = RNG.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    analysis = graphs.runner(graphs.to_onnx(net.analysis, example, "latent"))
    latent = run_keras(net.analysis, images)
    np.testing.assert_allclose(analysis(images), latent, atol=1e-5)
    symbols = np.rint(5 * latent)
    graph = graphs.to_onnx(net.synthesis, np.zeros((1, 8, 8, 6), "float32"), "image")
    np.testing.assert_allclose(graphs.runner(graph)(symbols), run_keras(net.synthesis, symbols), atol=1e-5)
    assert names(graph) == ("symbols", "image")


def test_a_graph_says_which_sizes_it_takes() -> None:
    graph = graphs.to_onnx(build(convolutional()).analysis, np.zeros((1, 8, 8, 3), np.uint8), "latent")
    found = shape(onnx.load_from_string(graph).graph.input[0])
    assert [isinstance(size, str) for size in found] == [True, True, True, False]
    graph = graphs.to_onnx(build(dense()).analysis, digits(1), "latent")
    assert shape(onnx.load_from_string(graph).graph.input[0])[1:] == [28, 28, 1]


def test_a_graph_is_plain_small_and_without_chatter(capfd: pytest.CaptureFixture[str]) -> None:
    noisy = with_layers(dense(), encoder=[{"Dropout": {"rate": 0.5}}, {"BatchNormalization": {}}])
    model = onnx.load_from_string(graphs.to_onnx(build(noisy).analysis, digits(1), "latent"))
    onnx.checker.check_model(model)
    assert {domain.domain for domain in model.opset_import} <= {"", "ai.onnx"}
    assert "Dropout" not in {node.op_type for node in model.graph.node}
    assert len(model.graph.node) < 25
    assert all(not node.doc_string and not node.metadata_props for node in model.graph.node)
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_exported_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator\nand a long story")

    monkeypatch.setattr(graphs, "_export", broken)
    with pytest.raises(ExportError, match=r"analysis: cannot be exported to ONNX: no such operator$"):
        graphs.to_onnx(build(dense()).analysis, digits(1), "latent")


def product(weights: np.ndarray) -> bytes:
    """A graph of one matrix product."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [value("x", TensorProto.FLOAT, ["B", weights.shape[0]])],
        [value("y", TensorProto.FLOAT, ["B", weights.shape[1]])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()


def test_halving_keeps_the_values_in_half_the_bytes() -> None:
    weights = RNG.normal(size=(64, 64)).astype("float32")
    full, x = product(weights), RNG.normal(size=(3, 64)).astype("float32")
    small = graphs.halved(full)
    assert len(small) < 0.55 * len(full)
    expected = x @ weights.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(graphs.runner(small)(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "weights", [np.ones((8, 8), "float32"), np.full((64, 64), 1e6, "float32")], ids=["small", "too large"]
)
def test_weights_that_halving_would_harm_or_not_help_stay(weights: np.ndarray) -> None:
    assert graphs.halved(product(weights)) == onnx.load_from_string(product(weights)).SerializeToString()


def test_silence_ends() -> None:
    before = logging.root.manager.disable

    def noisy() -> None:
        with graphs.silence():
            warnings.warn("not to be seen", UserWarning, stacklevel=1)
            raise KeyError

    with pytest.raises(KeyError):
        noisy()
    assert logging.root.manager.disable == before
    with pytest.warns(UserWarning, match="seen again"):
        warnings.warn("seen again", UserWarning, stacklevel=1)
