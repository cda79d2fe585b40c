"""Latents that stay: what codes them is trained on rounded ones, as a file has them, or what regenerates is."""

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
    net.fixed_latents = True
    loss = losses.Loss("mse")

    def rate(training: bool) -> float:
        return float(numpy(steps.measure(net, loss, images, training=training, **chosen)[1])[1])

    assert rate(True) == pytest.approx(rate(False), rel=1e-4)


@pytest.mark.parametrize("make", [hyper, factorized])
def test_only_what_codes_the_latents_learns_and_the_rate_of_files_falls(make: Any) -> None:
    net, images, chosen = make()
    before = {name: numpy(variable).copy() for name, variable in net.named_variables().items()}
    net.train_only("prior")
    loss = losses.Loss("mse", lmbda=1.0)

    def measured() -> list[float]:
        return numpy(steps.measure(net, loss, images, training=False, **chosen)[1]).tolist()

    first = measured()
    step = steps.make_step(net, loss)
    for _ in range(20):
        step(images, 3e-3)
    last = measured()
    assert last[1] < 0.99 * first[1]
    assert last[2] == pytest.approx(first[2], rel=1e-6)
    moved = {n for n, v in net.named_variables().items() if not np.array_equal(numpy(v), before[n])}
    moved -= {name for name in moved if "seed" in name}
    assert moved
    assert all("prior" in name or "scales" in name for name in moved), moved


@pytest.mark.parametrize("make", [hyper, factorized])
def test_only_the_synthesis_learns_and_files_stay(make: Any) -> None:
    net, images, chosen = make()
    net.train_only("synthesis")
    loss = losses.Loss("mse")

    def measured() -> list[float]:
        return numpy(steps.measure(net, loss, images, training=False, **chosen)[1]).tolist()

    before, first = {n: numpy(v).copy() for n, v in net.named_variables().items()}, measured()
    step = steps.make_step(net, loss)
    for _ in range(20):
        step(images, 3e-3)
    last = measured()
    assert last[1] == pytest.approx(first[1], rel=1e-6)
    assert last[2] > first[2]
    moved = {n for n, v in net.named_variables().items() if not np.array_equal(numpy(v), before[n])}
    assert {name.split("_")[0] for name in moved if "seed" not in name} == {"decoder"}, moved


@pytest.mark.parametrize("make", [hyper, factorized])
def test_only_the_encoder_learns_for_the_synthesis_that_there_is(make: Any) -> None:
    net, images, chosen = make()
    net.train_only("encoder")
    before = {n: numpy(v).copy() for n, v in net.named_variables().items()}
    loss = losses.Loss("mse", lmbda=1.0)
    first = numpy(steps.measure(net, loss, images, training=False, **chosen)[1])[0]
    step = steps.make_step(net, loss)
    for _ in range(20):
        step(images, 3e-3)
    last = numpy(steps.measure(net, loss, images, training=False, **chosen)[1])[0]
    assert last < first
    moved = {n for n, v in net.named_variables().items() if not np.array_equal(numpy(v), before[n])}
    assert any(name.startswith("encoder") for name in moved)
    assert not any(name.startswith("decoder") for name in moved), moved
