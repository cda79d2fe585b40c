"""The last stage of a training: the rate is that of rounded latents, as a file will have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attar import spec as specs
from attar.train import losses, network, steps
from training_kit import build, dense, digits, numpy

TINY = Path(__file__).parent / "data" / "tiny_photo.json"


def hyper() -> tuple[Any, np.ndarray, dict[str, Any]]:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    return network.build(specs.load(TINY), seed=0, dtype="float32"), images, {"quality": 0.3}


def factorized() -> tuple[Any, np.ndarray, dict[str, Any]]:
    return build(dense(), seed=1), digits(16), {}


@pytest.mark.parametrize("make", [hyper, factorized])
def test_the_rate_in_training_is_that_of_validation(make: Any) -> None:
    net, images, chosen = make()
    loss = losses.Loss("mse")

    def rate(training: bool) -> float:
        # What is drawn has a quality of its own, which is not what is compared here.
        drawn = {"noise": net.draw(images.shape)["noise"]} if training else {}
        return float(numpy(steps.measure(net, loss, images, training=training, **drawn, **chosen)[1])[1])

    expected, noisy = rate(False), rate(True)
    net.rounded_rate = True
    assert rate(True) == pytest.approx(expected, rel=1e-4)
    assert noisy != pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("make", [hyper, factorized])
def test_every_part_still_learns(make: Any) -> None:
    net, images, _ = make()
    net.rounded_rate = True
    parts = (net.analysis, net.synthesis, net.prior)
    before = [[numpy(variable).copy() for variable in part.trainable_variables] for part in parts]
    step = steps.make_step(net, losses.Loss("mse"))
    assert np.isfinite([numpy(step(images, 1e-3)) for _ in range(3)]).all()
    for part, values in zip(parts, before, strict=True):
        pairs = zip(part.trainable_variables, values, strict=True)
        assert any(not np.array_equal(numpy(variable), value) for variable, value in pairs), part.name
