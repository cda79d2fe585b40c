"""The losses, on whatever Keras backend is in use, against attar.measure.metrics and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from attar.errors import TrainingError
from attar.measure import metrics
from attar.train import losses
from attar.train.config import CHOICES
from training_kit import gradient, numpy

RNG = np.random.default_rng(7)


def noisy(shape: tuple[int, ...], amount: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Smooth images and noisy copies, float32 in [0, 1]."""
    y, x = np.mgrid[: shape[1], : shape[2]]
    waves = 0.5 + 0.4 * np.sin(x / 3.1 + 1)[..., None] * np.cos(y / 5.3)[..., None]
    images = np.broadcast_to(waves, shape)
    return images.astype("float32"), np.clip(images + RNG.normal(0, amount, shape), 0, 1).astype("float32")


def pairs(shape: tuple[int, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = RNG.random((2, *shape)).astype("float32")
    return {
        "smooth and noisy": noisy(shape),
        "unrelated noise": (random[0], random[1]),
        "constant": (np.full(shape, 0.25, "float32"), np.full(shape, 0.5, "float32")),
        "black and white": (np.zeros(shape, "float32"), np.ones(shape, "float32")),
        "negative": (random[0], 1 - random[0]),
        "identical": (random[0], random[0]),
    }


SHAPES = [(2, 8, 8, 1), (2, 28, 28, 1), (1, 9, 40, 3), (1, 11, 11, 3), (1, 64, 37, 3), (1, 256, 256, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_and_psnr_are_those_of_the_metrics(shape: tuple[int, ...]) -> None:
    for name, (a, b) in pairs(shape).items():
        expected = metrics.ssim(a, b)
        np.testing.assert_allclose(numpy(losses.ssim(a, b)), expected, atol=5e-5, err_msg=name)
        decibels = np.minimum(metrics.psnr(a, b), 100.0)
        np.testing.assert_allclose(numpy(losses.psnr(a, b)), decibels, atol=1e-3, err_msg=name)
        np.testing.assert_allclose(numpy(losses.mse(a, b)), ((a - b) ** 2).mean((1, 2, 3)), rtol=1e-5)
        np.testing.assert_allclose(numpy(losses.mae(a, b)), abs(a - b).mean((1, 2, 3)), rtol=1e-5)


def test_ssim_is_that_of_scikit_image() -> None:
    skimage = pytest.importorskip("skimage.metrics")
    a, b = noisy((1, 64, 80, 3))
    _, full = skimage.structural_similarity(
        a[0], b[0], data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    inside = full[5:-5, 5:-5].mean()  # it pads; only windows wholly inside are ours
    assert float(numpy(losses.ssim(a, b))[0]) == pytest.approx(inside, abs=2e-5)


@pytest.mark.parametrize("size", [(161, 200), (176, 176), (256, 256)])
def test_ms_ssim_is_that_of_the_metrics(size: tuple[int, int]) -> None:
    for name, (a, b) in pairs((1, *size, 1)).items():
        expected = metrics.ms_ssim(a, b)
        np.testing.assert_allclose(numpy(losses.ms_ssim(a, b)), expected, atol=5e-4, err_msg=name)


@pytest.mark.parametrize(("side", "scales"), [(8, 1), (11, 1), (20, 1), (21, 2), (41, 3), (81, 4), (161, 5)])
def test_ms_ssim_of_small_images_has_as_many_scales_as_fit(side: int, scales: int) -> None:
    assert losses._scales(side) == scales
    a, b = noisy((2, side, side, 1), 0.05)
    several, one = numpy(losses.ms_ssim(a, b)), numpy(losses.ssim(a, b))
    assert ((several > 0) & (several < 1)).all()
    assert np.allclose(several, one, atol=1e-5) == (scales == 1)


@pytest.mark.parametrize("name", CHOICES["loss"])
@pytest.mark.parametrize("side", [8, 28, 45])
def test_gradients_are_finite_everywhere(name: str, side: int) -> None:
    loss, no_bits = losses.Loss(name), ops.zeros(2)
    for case, (a, b) in pairs((2, side, side, 1)).items():
        reference = ops.convert_to_tensor(a)
        found = gradient(lambda x, a=reference: loss(a, x, no_bits)[0], b)
        assert np.isfinite(found).all(), case
        if case == "identical":  # no distortion falls any more
            assert abs(found).max() < 1e-4
        elif case == "smooth and noisy":
            assert abs(found).max() > 0


REFERENCES = {
    "ssim-l1": lambda a, b: 0.75 * (1 - metrics.ssim(a, b)[0]) + 0.25 * abs(a - b).mean(),
    "mse": lambda a, b: 255**2 * ((a - b) ** 2).mean(),
    "ms-ssim": lambda a, b: 1 - metrics.ssim(a, b)[0],  # on one scale
}


@pytest.mark.parametrize("name", CHOICES["loss"])
def test_gradients_are_those_of_the_reference(name: str) -> None:
    """Central differences of the losses in NumPy, in double precision."""
    a, b = noisy((1, 12, 13, 1), 0.2)
    b = 0.1 + 0.8 * b
    loss, reference = losses.Loss(name, lmbda=0.0), ops.convert_to_tensor(a)
    found = gradient(lambda x: loss(reference, x, ops.zeros(1))[0], b)[0, ..., 0]
    for row, column in RNG.integers(0, 12, (12, 2)):
        step = np.zeros(b.shape)
        step[0, row, column, 0] = 1e-5
        plus, minus = (REFERENCES[name](a.astype(float), b + sign * step) for sign in (1, -1))
        assert found[row, column] == pytest.approx((plus - minus) / 2e-5, rel=2e-3, abs=1e-6)


def test_pixels_that_are_right_are_not_pushed() -> None:
    a, b = np.zeros((1, 12, 12, 1), "float32"), np.zeros((1, 12, 12, 1), "float32")
    b[0, 3, 4, 0], b[0, 5, 6, 0] = 0.5, -0.5
    reference = ops.convert_to_tensor(a)
    found = gradient(lambda x: ops.sum(losses.mae(reference, x)), b)
    np.testing.assert_allclose(found, np.sign(b) / 144, rtol=1e-6)


def test_ms_ssim_leads_out_of_negative_correlation() -> None:
    """Terms below zero count as zero and still have a gradient: a loss of exactly 1 is no trap."""
    y, x = np.mgrid[:45, :45]
    a = (0.5 + 0.4 * np.sin(x / 2.0) * np.sin(y / 2.0)).astype("float32")[None, ..., None]
    b = 1 - a
    assert float(numpy(losses.ms_ssim(a, b))[0]) == 0.0
    reference = ops.convert_to_tensor(a)
    assert abs(gradient(lambda x: ops.sum(losses.ms_ssim(reference, x)), b)).max() > 0


def test_loss_is_weighted_and_the_rate_is_in_bits_per_pixel() -> None:
    a, b = noisy((2, 12, 10, 1))
    bits = ops.convert_to_tensor([60.0, 180.0])
    value, rate = losses.Loss("mse", weight=2.0, lmbda=0.5)(a, b, bits)
    assert float(numpy(rate)) == pytest.approx(120 / 120)
    expected = 2 * 255**2 * ((a - b) ** 2).mean() + 0.5 * 1.0
    assert float(numpy(value)) == pytest.approx(expected, rel=1e-5)
    value, _ = losses.Loss("ssim-l1", alpha=0.75, lmbda=0.0)(a, b, bits)
    expected = 0.75 * (1 - metrics.ssim(a, b).mean()) + 0.25 * abs(a - b).mean()
    assert float(numpy(value)) == pytest.approx(expected, abs=1e-5)


def test_the_configuration_offers_exactly_the_losses_that_there_are() -> None:
    assert set(CHOICES["loss"]) == set(losses.DISTORTIONS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"distortion": "l3"}, "unknown loss 'l3': expected one of ssim-l1, mse, ms-ssim"),
        ({"alpha": 1.5}, "expected 0 <= alpha <= 1"),
        ({"weight": -1.0}, "weight -1.0"),
        ({"lmbda": float("nan")}, "lmbda nan"),
    ],
)
def test_a_loss_out_of_range_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(TrainingError, match=words.replace("(", r"\(")):
        losses.Loss(**arguments)
