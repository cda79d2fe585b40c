"""The gradient of a synthesis, built from its ONNX graph, against differences of its error."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import attar
from attar.codec import gradient
from attar.codec.values import levels
from attar.errors import BundleError


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
        return ran.run(["image", gradient.GRADIENT], given)

    plain = codec.networks.run("synthesis", {"latent": latent, "quality": quality})
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
        return float(np.square(run(values, target)[0].astype(np.float64) - target).sum()) / 2

    for _ in range(4):
        way = rng.normal(size=latent.shape) * 0.02
        told = float((found * way).sum())
        counted = (error(latent + way) - error(latent - way)) / 2
        assert counted == pytest.approx(
            told, rel=0.03, abs=0.003 * np.linalg.norm(found) * np.linalg.norm(way)
        )
    way = -found * (0.02 / np.abs(found).max())
    assert error(latent + way) < error(latent)


def test_a_network_that_cannot_be_followed_is_refused() -> None:
    graphs = attar.load("photo").bundle.graphs
    with pytest.raises(gradient.UnknownGradientError, match="no gradient is known of"):
        gradient.of_squared_error(graphs["hyper_scales"], "hyper_symbols", "photo")
    with pytest.raises(gradient.UnknownGradientError, match="expected one output, and an input nothing"):
        gradient.of_squared_error(graphs["synthesis"], "nothing", "photo")
    with pytest.raises(BundleError, match="not an ONNX file"):
        gradient.of_squared_error(graphs["synthesis"][:-1], "latent", "photo")
