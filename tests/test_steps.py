"""One training step and its state, on whatever Keras backend is in use."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from attar.errors import CheckpointError
from attar.train import losses, steps
from attar.train.network import Network
from training_kit import build, dense, digits, numpy, with_layers

IMAGES = digits(32)
NOISY = with_layers(dense(), encoder=[{"BatchNormalization": {"momentum": 0.5}}, {"Dropout": {"rate": 0.2}}])


def parts(state: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")}


def weights(net: Network) -> dict[str, np.ndarray]:
    return {name: numpy(variable).copy() for name, variable in net.named_variables().items()}


def put(net: Network, values: dict[str, np.ndarray]) -> None:
    for name, variable in net.named_variables().items():
        variable.assign(values[name])


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def trained(content: dict[str, Any], count: int, **options: Any) -> tuple[Network, steps.Step]:
    net = build(content, seed=1)
    step = steps.make_step(net, losses.Loss(), **options)
    for _ in range(count):
        step(IMAGES, 1e-3)
    return net, step


def test_a_few_steps_lower_the_loss() -> None:
    net = build(dense())
    step = steps.make_step(net, losses.Loss(lmbda=0.001))
    found = np.stack([numpy(step(IMAGES, 3e-3)) for _ in range(50)])
    assert found.shape == (50, len(steps.METRICS))
    assert np.isfinite(found).all()
    assert found[-1][0] < 0.85 * found[0][0]


def test_metrics_are_those_of_the_batch_before_the_update() -> None:
    net, loss = build(dense()), losses.Loss("mse", weight=0.5, lmbda=0.3)
    before = weights(net)
    found = numpy(steps.make_step(net, loss)(IMAGES, 1e-3))
    put(net, before)
    _, expected = steps.measure(net, loss, IMAGES, training=True)
    np.testing.assert_allclose(found, numpy(expected), rtol=1e-4)


def test_the_loss_is_the_distortion_and_the_price_of_the_bits() -> None:
    net, loss = build(dense()), losses.Loss("mse", weight=0.5, lmbda=0.3)
    value, metrics = steps.measure(net, loss, IMAGES, training=False)
    forward = net(IMAGES)
    error = numpy(forward.regenerated) - IMAGES / 255
    rate = numpy(forward.bits).mean() / 784
    expected = 0.5 * 255**2 * (error**2).mean() + 0.3 * rate
    assert float(numpy(value)) == pytest.approx(expected, rel=1e-4)
    assert numpy(metrics)[1] == pytest.approx(rate, rel=1e-5)


def test_every_weight_learns_and_every_state_moves() -> None:
    net = build(NOISY)
    before = weights(net)
    step = steps.make_step(net, losses.Loss())
    for _ in range(3):
        step(IMAGES, 1e-3)
    after = weights(net)
    still = [name for name in before if np.array_equal(before[name], after[name])]
    # PyTorch's dropout draws from the global generator, whose state is kept with the step's.
    dropout = ["seed_generator/seed_generator_state"] if keras.backend.backend() == "torch" else []
    assert still == dropout


def test_the_learning_rate_is_that_of_the_call() -> None:
    net = build(dense())
    step = steps.make_step(net, losses.Loss())
    step(IMAGES, 1e-3)
    before = weights(net)
    step(IMAGES, 0.0)
    after = weights(net)
    assert all(np.array_equal(before[name], after[name]) for name in before if "seed_generator" not in name)


def test_the_gradient_is_clipped_as_a_whole() -> None:
    """The first step of Adam has the size of the learning rate whatever the gradient, unless that is tiny."""
    moved = {}
    for clip in (None, 1e-9):
        net = build(dense())
        before = weights(net)
        steps.make_step(net, losses.Loss(), clip_norm=clip)(IMAGES, 1e-3)
        name = "decoder_1_dense/bias"
        moved[clip] = abs(weights(net)[name] - before[name]).max()
    assert moved[None] == pytest.approx(1e-3, rel=1e-3)
    assert moved[1e-9] < 0.1 * moved[None]


def test_the_average_follows_the_weights_and_is_put_aside_again() -> None:
    net, step = trained(dense(), 0, average=0.6)
    expected = weights(net)
    for done in range(1, 8):
        step(IMAGES, 1e-3)
        momentum = min(0.6, (1 + done) / (10 + done))
        expected = {k: momentum * v + (1 - momentum) * weights(net)[k] for k, v in expected.items()}
    now = weights(net)
    kernel = "encoder_1_dense/kernel"
    with step.averaged():
        np.testing.assert_allclose(weights(net)[kernel], expected[kernel], atol=1e-6)
        assert not np.array_equal(weights(net)[kernel], now[kernel])
    assert same(weights(net), now)
    np.testing.assert_allclose(parts(step.state(), "average")[kernel], expected[kernel], atol=1e-6)


def test_the_weights_come_back_from_the_average_after_an_error() -> None:
    net, step = trained(dense(), 3, average=0.6)
    now = weights(net)
    with pytest.raises(KeyboardInterrupt), step.averaged():
        raise KeyboardInterrupt
    assert same(weights(net), now)


@pytest.mark.parametrize("average", [0.0, 0.7])
def test_a_restored_step_goes_on_to_the_same_numbers(average: float) -> None:
    net, step = trained(NOISY, 4, average=average)
    kept, state = weights(net), step.state()
    expected = [numpy(step(IMAGES, 1e-3)) for _ in range(4)]
    again = build(NOISY, seed=9)
    other = steps.make_step(again, losses.Loss(), average=average)
    numpy(other(IMAGES, 1e-3))  # whatever happened before must not matter
    put(again, kept)
    other.restore(parts(state, "optimizer"), parts(state, "average"), parts(state, "random"))
    found = [numpy(other(IMAGES, 1e-3)) for _ in range(4)]
    np.testing.assert_array_equal(found, expected)
    assert same(weights(again), weights(net))
    assert same(other.state(), step.state())


def test_a_state_is_a_copy() -> None:
    _, step = trained(dense(), 2, average=0.5)
    state = step.state()
    kept = {name: value.copy() for name, value in state.items()}
    step(IMAGES, 1e-3)
    assert same(state, kept)


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    _, step = trained(dense(), 2, average=0.5)
    state = step.state()
    optimizer, average = parts(state, "optimizer"), parts(state, "average")
    net = build(dense(), seed=2)
    other = steps.make_step(net, losses.Loss(), average=0.5)
    untouched = other.state()
    name = next(name for name, value in optimizer.items() if value.ndim == 2)
    with pytest.raises(CheckpointError, match=r"optimizer"):
        other.restore({}, average, {})
    with pytest.raises(CheckpointError, match=r"optimizer"):
        other.restore({**optimizer, name: np.zeros((3, 3), "float32")}, average, {})
    with pytest.raises(CheckpointError, match=r"no running average"):
        other.restore(optimizer, {}, {})
    assert same(other.state(), untouched)


def test_bf16_takes_a_real_step() -> None:
    net = build(dense(), dtype="mixed_bfloat16")
    step = steps.make_step(net, losses.Loss(lmbda=0.001))
    found = np.stack([numpy(step(IMAGES, 3e-3)) for _ in range(25)])
    assert found.dtype == np.float32
    assert found[-1][0] < 0.9 * found[0][0]


@pytest.mark.filterwarnings("ignore")  # of the compilers' own modules
def test_compile_takes_a_real_step() -> None:
    if keras.backend.backend() == "torch":
        import shutil

        import torch

        if not (shutil.which("g++") or shutil.which("clang++")) and not torch.cuda.is_available():
            pytest.skip("torch.compile needs a C++ compiler")
    net, plain = build(dense(), seed=1), build(dense(), seed=1)
    step, reference = (
        steps.make_step(n, losses.Loss(), compiled=c) for n, c in ((net, True), (plain, False))
    )
    found = [numpy(step(IMAGES, 1e-3)) for _ in range(3)]
    assert np.isfinite(found).all()
    # The noise is drawn by another generator inside a compiled step, so the rate may differ a little.
    np.testing.assert_allclose(found, [numpy(reference(IMAGES, 1e-3)) for _ in range(3)], rtol=0.05)
    assert not same(weights(net), weights(build(dense(), seed=1)))
