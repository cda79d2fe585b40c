"""Integer layers against arithmetic in int64, and the proof that is made of their graphs, shown its faults."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from attar.errors import ExportError
from attar.train import exactness, export_hyper, graphs
from attar.train.integer import IntegerConv2D, IntegerDepthwiseConv2D, IntegerInput
from attar.train.tensors import to_numpy

RNG = np.random.default_rng(0)


def stack(scale: float = 1.0) -> tuple[keras.Model, list]:
    """A small integer network, and its integer layers; ``scale`` makes its weights large or small."""
    layers = [
        IntegerConv2D(12, input_bits=0),
        IntegerDepthwiseConv2D(3),
        IntegerConv2D(9, minimum=-128, maximum=127),
        IntegerConv2D(7, input_bits=4, maximum=63, bias_initializer="ones"),
    ]
    inputs = keras.Input((None, None, 5), name="hyper_symbols")
    values = IntegerInput()(inputs)
    for layer in layers:
        values = layer(values)
    for layer in layers:
        layer.kernel.assign(scale * to_numpy(layer.kernel))
        layer.bias.assign(RNG.normal(0, 3, layer.bias.shape))
    return keras.Model(inputs, values, name="integers"), layers


def reference(layers: list, values: np.ndarray) -> np.ndarray:
    """The network in int64: integer weights, shifts to the right, clipping."""
    values = np.clip(values, -127, 127).astype(np.int64)
    for layer in layers:
        kernel, bias = (to_numpy(value).astype(np.float64) for value in layer.quantised())
        # Steps of each output: the least power of two that makes all of its weights whole.
        columns = kernel.reshape(-1, kernel.shape[3] if isinstance(layer, IntegerConv2D) else kernel.shape[2])
        shifts = [
            next(s for s in range(25) if not (c * 2.0**s % 1).any()) for c in np.vstack([columns, bias]).T
        ]
        unit = 2 ** np.array(shifts)
        weights, added = np.rint(columns * unit).astype(np.int64), np.rint(bias * unit).astype(np.int64)
        assert np.abs(weights).max() <= 127
        k = layer.kernel_size
        around = np.pad(values, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
        taps = np.stack(
            [around[:, y : y + values.shape[1], x : x + values.shape[2]] for y in range(k) for x in range(k)],
            axis=3,
        )  # (B, H, W, k k, C)
        if isinstance(layer, IntegerConv2D):
            sums = taps.reshape(*taps.shape[:3], -1) @ weights
        else:
            sums = (taps * weights).sum(axis=3)
        assert (np.abs(sums) + np.abs(added) < 1 << 24).all()
        values = np.clip((sums + added) >> np.array(shifts), layer.minimum, layer.maximum)
    return values


@pytest.mark.parametrize("scale", [0.01, 1.0, 60.0])
def test_layers_and_their_graph_compute_what_int64_computes(scale: float) -> None:
    model, layers = stack(scale)
    for layer in layers:
        layer.freeze()
    extreme = RNG.choice([-(2.0**31), -300, -127, 0, 127, 2.0**31], (2, 6, 7, 5)).astype(np.float32)
    graph = export_hyper.to_onnx(model, [extreme], "scales")
    exactness.prove(graph, "scales", {})
    for values in (extreme, RNG.integers(-9, 10, (1, 3, 5, 5)).astype(np.float32)):
        expected = reference(layers, values)
        assert expected.min() >= 0
        assert expected.max() <= 63
        assert np.array_equal(export_hyper.predict(model, [values]), expected)
        for optimised in (False, True):
            for threads in (1, 2):
                found = graphs.run(graph, [values], optimised=optimised, threads=threads)
                assert np.array_equal(found, expected)
                assert np.array_equal(
                    graphs.run(graphs.halved(graph), [values], optimised=optimised), expected
                )


def test_training_and_inference_give_the_same_integers_and_a_gradient() -> None:
    model, layers = stack()
    values = keras.ops.convert_to_tensor(RNG.integers(-9, 10, (1, 4, 4, 5)).astype(np.float32))
    trained = model(values, training=True)
    assert np.array_equal(to_numpy(trained), to_numpy(model(values, training=False)))
    if keras.backend.backend() == "torch":
        trained.sum().backward()
        assert all(float(layer.kernel.value.grad.abs().sum()) > 0 for layer in layers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 2}, "kernel_size is 2, expected 1, 3"),
        ({"input_bits": 9}, "input_bits is 9, expected 0 to 8"),
        ({"minimum": -200, "maximum": 200}, r"activations -200 to 200; expected 8 bits within -255\.\.255"),
        ({"filters": 0}, "filters is 0, expected a whole number"),
    ],
)
def test_arguments_that_make_no_integer_layer(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntegerConv2D(**{"filters": 4, **arguments})


def graph_of(weights: np.ndarray, bias: np.ndarray, *nodes: onnx.NodeProto) -> bytes:
    """Clip to -127..127, a 1x1 convolution, and ``nodes`` from "sum" to "scales"."""
    constants = {
        "weights": weights.astype(np.float32),
        "bias": bias.astype(np.float32),
        "low": np.float32(-127),
        "high": np.float32(127),
        "half": np.float32(0.5),
    }
    first = [
        helper.make_node("Clip", ["symbols", "low", "high"], ["clipped"]),
        helper.make_node("Conv", ["clipped", "weights", "bias"], ["sum"]),
    ]
    graph = helper.make_graph(
        [*first, *nodes],
        "planted",
        [helper.make_tensor_value_info("symbols", TensorProto.FLOAT, ["B", weights.shape[1], "h", "w"])],
        [helper.make_tensor_value_info("scales", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


FLOOR = helper.make_node("Floor", ["sum"], ["floor"])
LAST = helper.make_node("Clip", ["floor", "low", "high"], ["scales"])


def test_the_proof_accepts_what_is_exact() -> None:
    exactness.prove(graph_of(np.full((3, 4, 1, 1), 0.25), np.full(3, 0.5), FLOOR, LAST), "planted", {})


@pytest.mark.parametrize(
    ("weights", "bias", "nodes", "message"),
    [
        (
            np.full((1, 4, 1, 1), 0.1),
            np.zeros(1),
            (FLOOR, LAST),
            "no integers times a power of two|beyond the 2",
        ),
        (np.full((1, 2000, 1, 1), 127.0), np.zeros(1), (FLOOR, LAST), r"can reach 3\.226e\+07 steps, beyond"),
        (np.full((1, 4, 1, 1), 2.0**-20), np.full(1, 20.0), (FLOOR, LAST), "beyond the 2"),
        (
            np.ones((1, 1, 1, 1)),
            np.zeros(1),
            (helper.make_node("Sigmoid", ["sum"], ["scales"]),),
            "nothing is known of the operator Sigmoid",
        ),
        (
            np.full((1, 1, 1, 1), 0.5),
            np.zeros(1),
            (helper.make_node("Clip", ["sum", "low", "high"], ["scales"]),),
            "not shown to be whole numbers",
        ),
        (
            np.full((1, 4, 1, 1), 9.0),
            np.zeros(1),
            (helper.make_node("Floor", ["sum"], ["scales"]),),
            "not shown to be whole numbers of 8 bits",
        ),
    ],
)
def test_the_proof_refuses_what_is_not(
    weights: np.ndarray, bias: np.ndarray, nodes: tuple, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        exactness.prove(graph_of(weights, bias, *nodes), "planted", {})
