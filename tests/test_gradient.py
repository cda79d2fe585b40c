"""The gradient of a synthesis, built from its ONNX graph, against differences of its error."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

import attar
from attar.codec import gradient
from attar.codec.similarity import scales_of
from attar.codec.values import levels
from attar.errors import BundleError
from attar.measure import metrics


def session(name: str) -> onnxruntime.InferenceSession:
    graph = attar.load(name).bundle.graphs["synthesis"]
    return onnxruntime.InferenceSession(
        gradient.of_squared_error(graph, "latent", name), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("name", ["photo", "photo-msssim"])
def test_the_gradient_tells_what_the_error_does(name: str) -> None:
    codec, ran = attar.load(name), session(name)
    rng = np.random.default_rng(0)
    pixels = (96 + 64 * np.sin(np.arange(128 * 128 * 3) / 50)).reshape(1, 128, 128, 3).astype(np.uint8)
    latent, quality = codec.analyse(pixels, 60).astype(np.float32), levels([60])

    def run(values: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
        given = {"latent": values.astype(np.float32), "quality": quality, gradient.TARGET: target}
        given[gradient.WEIGHT] = weight
        return ran.run(["image", gradient.GRADIENT], given)

    plain = codec.networks.run("synthesis", {"latent": latent, "quality": quality})
    weight = rng.integers(0, 3, plain.shape).astype(np.float32)
    image, nothing = run(latent, plain)
    assert np.abs(image - plain).max() < 1e-5
    assert np.abs(nothing).max() < 1e-3
    # Nothing is clipped, and so the error is smooth but for the rectifiers.
    assert plain.min() > 0.02
    assert plain.max() < 0.98
    target = np.clip(plain + rng.normal(size=plain.shape) * 0.05, 0, 1).astype(np.float32)
    found = run(latent, target)[1].astype(np.float64)
    assert found.shape == latent.shape

    def error(values: np.ndarray) -> float:
        return float((weight * np.square(run(values, target)[0].astype(np.float64) - target)).sum()) / 2

    for _ in range(4):
        way = rng.normal(size=latent.shape) * 0.02
        told = float((found * way).sum())
        counted = (error(latent + way) - error(latent - way)) / 2
        assert counted == pytest.approx(
            told, rel=0.03, abs=0.003 * np.linalg.norm(found) * np.linalg.norm(way)
        )
    way = -found * (0.02 / np.abs(found).max())
    assert error(latent + way) < error(latent)


@pytest.mark.parametrize("shape", [(192, 256), (64, 128)])
def test_the_similarity_of_an_image_and_its_gradient(shape: tuple[int, int]) -> None:
    codec, rng = attar.load("photo-msssim", threads=1), np.random.default_rng(0)
    scales = scales_of(*shape)
    assert scales == (5 if min(shape) > 160 else 3)
    pixels = (128 + 100 * np.sin(np.arange(np.prod(shape) * 3) / 50)).reshape(1, *shape, 3).astype(np.uint8)
    latent, target = codec.analyse(pixels, 30).astype(np.float32), pixels.astype(np.float32) / 255
    weight = np.ones_like(target)

    def run(values: np.ndarray) -> tuple[np.ndarray, ...]:
        given = {"latent": values.astype(np.float32), "quality": levels([30]), gradient.TARGET: target}
        return codec.networks.pull("synthesis", "latent", {**given, gradient.WEIGHT: weight}, scales)

    image, found, value = run(latent)
    if scales == 5:
        assert float(value.sum()) == pytest.approx(
            metrics.ms_ssim(target[0], np.clip(image[0], 0, 1)), abs=1e-5
        )
    for _ in range(3):
        way = rng.normal(size=latent.shape) * 0.1
        counted = (run(latent + way)[2].sum(dtype=float) - run(latent - way)[2].sum(dtype=float)) / 2
        told = float((found * way).sum())
        assert counted == pytest.approx(told, rel=0.1, abs=0.05 * np.linalg.norm(found) * np.linalg.norm(way))
    way = found * (0.03 / np.abs(found).max())
    assert float(run(latent + way)[2].sum()) > float(value.sum()) + 0.5 * float((found * way).sum())
    weight[:, :, shape[1] // 2 :] = 0  # the other half does not count
    assert np.abs(run(latent)[1][:, :, -1]).max() < 1e-3 * np.abs(found).max()


def test_rooms_for_scales() -> None:
    assert [scales_of(*size) for size in ((16, 16), (32, 176), (176, 168), (1024, 8))] == [1, 2, 4, 1]


def test_a_network_that_cannot_be_followed_is_refused() -> None:
    graphs = attar.load("photo").bundle.graphs
    with pytest.raises(gradient.UnknownGradientError, match="no gradient is known of"):
        gradient.of_squared_error(graphs["hyper_scales"], "hyper_symbols", "photo")
    with pytest.raises(gradient.UnknownGradientError, match="expected one output, and an input nothing"):
        gradient.of_squared_error(graphs["synthesis"], "nothing", "photo")
    with pytest.raises(BundleError, match="not an ONNX file"):
        gradient.of_squared_error(graphs["synthesis"][:-1], "latent", "photo")


@pytest.mark.parametrize("name", ["photo", "photo-msssim"])
def test_a_gradient_is_pulled_back_through_a_network(name: str) -> None:
    networks, rng = attar.load(name).networks, np.random.default_rng(0)
    means, found = (rng.normal(size=(1, 6, 8, channels)).astype(np.float32) for channels in (512, 384))
    seed = rng.normal(size=found.shape).astype(np.float32)

    def run(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return networks.pull("context_means", "found", {"means": means, "found": values, gradient.SEED: seed})

    output, pulled = run(found)
    assert np.allclose(output, networks.run("context_means", {"means": means, "found": found}), atol=1e-4)
    way = rng.normal(size=found.shape).astype(np.float32)
    above, below = (run(found + sign * np.float32(0.01) * way)[0].astype(np.float64) for sign in (1, -1))
    assert ((above - below) * seed).sum() / 0.02 == pytest.approx(float((pulled * way).sum()), rel=0.02)


def model(kind: str, inputs: list[str], **attributes: Any) -> bytes:
    image = [helper.make_tensor_value_info(name, 1, [1, "H", "W", 3]) for name in ("a", "b")]
    node = helper.make_node(kind, inputs, ["out"], **attributes)
    graph = helper.make_graph([node], "g", image, [helper.make_tensor_value_info("out", 1, None)])
    return helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("Mul", ["a"], {}),
        ("Sub", ["a", "b", "a"], {}),
        ("Conv", ["a"], {}),
        ("Transpose", ["a"], {}),
        ("Concat", ["a", "b"], {}),
        ("Concat", ["a", "b"], {"axis": "last"}),
        ("LeakyRelu", ["a"], {"alpha": -1.0}),
        ("LeakyRelu", ["a"], {"alpha": "steep"}),
        ("Conv", ["a", "b"], {"pads": [1]}),
        ("Sigmoid", [], {}),
    ],
)
def test_a_malformed_node_is_refused(kind: str, inputs: list[str], attributes: dict[str, Any]) -> None:
    with pytest.raises(gradient.UnknownGradientError):
        gradient.of_squared_error(model(kind, inputs, **attributes), "a", "hostile")
