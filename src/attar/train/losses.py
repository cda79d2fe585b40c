"""Distortions and metrics as differentiable Keras operations, on images (B, H, W, C) in [0, 1].

``loss = weight * distortion + lmbda * rate``, the rate in bits per pixel. Reference implementations in plain
numpy, and the exact definitions, are in :mod:`attar.measure.metrics`; the tests hold the two together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from keras import ops

from attar.errors import TrainingError

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # Wang et al. 2004
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003
SMALLEST_LOSS = 1e-6  # of an image, where losses divide gradients
SMALLEST_TERM = 1e-6  # keeps the gradient of MS-SSIM's fractional powers finite


def gaussian_rows(size: int, window: int) -> Any:
    """Matrix (size - window + 1, size) whose product is the valid convolution with the Gaussian window.

    A tensor of the backend throughout: arrays of NumPy would break the graph that PyTorch compiles.
    """
    total = sum(math.exp(-((tap - window // 2) ** 2) / (2 * SIGMA**2)) for tap in range(window))
    columns, rows = ops.arange(size, dtype="float32"), ops.arange(size - window + 1, dtype="float32")
    tap = ops.expand_dims(columns, 0) - ops.expand_dims(rows, 1)
    inside = ops.cast(ops.logical_and(tap >= 0, tap < window), "float32")
    return inside * ops.exp(-ops.square(tap - window // 2) / (2 * SIGMA**2)) / total


def _ssim_terms(a: Any, b: Any) -> tuple[Any, Any]:
    """Mean SSIM and mean contrast-structure term of each image and channel, both (B, C)."""
    height, width = int(a.shape[1]), int(a.shape[2])
    shortest = min(height, width)
    window = min(WINDOW, shortest - 1 + shortest % 2)  # the largest odd one that fits
    down, across = gaussian_rows(height, window), gaussian_rows(width, window)
    # One product for all five moments, (5B, C, H, W), with the two Toeplitz matrices.
    moments = ops.concatenate([a, b, a * a, b * b, a * b], axis=0)
    moments = ops.transpose(moments, (0, 3, 1, 2))
    moments = ops.matmul(ops.matmul(down, moments), ops.transpose(across))
    mean_a, mean_b, aa, bb, ab = ops.split(moments, 5, axis=0)
    c1, c2 = K1**2, K2**2
    contrast = (2 * (ab - mean_a * mean_b) + c2) / (aa + bb - mean_a**2 - mean_b**2 + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return ops.mean(luminance * contrast, axis=(2, 3)), ops.mean(contrast, axis=(2, 3))


def ssim(a: Any, b: Any) -> Any:
    """SSIM of each image, (B,), as tf.image.ssim: 11 x 11 Gaussian of sigma 1.5, windows wholly inside."""
    return ops.mean(_ssim_terms(a, b)[0], axis=-1)


def ms_ssim(a: Any, b: Any) -> Any:
    """Multi-scale SSIM of each image, (B,), on five scales.

    Images too small for that take as many scales as leave 11 pixels, the weights renormalised. Terms below
    zero count as zero and keep a gradient all the same, so that training can leave them.
    """
    scales = _scales(min(int(a.shape[1]), int(a.shape[2])))
    weights = np.asarray(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    exact: Any = 1.0
    smooth: Any = 1.0
    for scale, weight in enumerate(weights.tolist()):
        if scale:
            a, b = _halve(a), _halve(b)
        full, contrast = _ssim_terms(a, b)
        term = full if scale == scales - 1 else contrast
        exact = exact * ops.maximum(ops.stop_gradient(term), 0.0) ** weight
        below = ops.minimum(term - SMALLEST_TERM, 0.0)
        smooth = smooth * ops.maximum(term, SMALLEST_TERM) ** weight * ops.exp(below)
    return ops.mean(smooth + ops.stop_gradient(exact - smooth), axis=-1)


def _scales(side: int) -> int:
    """How many of the five scales leave at least one window of 11 pixels."""
    count = 1
    while count < len(SCALE_WEIGHTS) and (side := -(-side // 2)) >= WINDOW:
        count += 1
    return count


def _halve(images: Any) -> Any:
    """2 x 2 averages; an odd side repeats its last line first."""
    if images.shape[1] % 2:
        images = ops.concatenate([images, images[:, -1:]], axis=1)
    if images.shape[2] % 2:
        images = ops.concatenate([images, images[:, :, -1:]], axis=2)
    return ops.average_pool(images, 2, 2, "valid", "channels_last")


def mse(a: Any, b: Any) -> Any:
    """Mean squared error of each image, (B,)."""
    return ops.mean(ops.square(a - b), axis=(1, 2, 3))


def mae(a: Any, b: Any) -> Any:
    """Mean absolute error of each image, (B,)."""
    difference = ops.subtract(a, b)
    # Not by ops.abs, whose gradient at 0 is 1 on JAX: pixels that are right would go on being pushed.
    return ops.mean(difference * ops.stop_gradient(ops.sign(difference)), axis=(1, 2, 3))


def psnr(a: Any, b: Any) -> Any:
    """PSNR of each image in dB, (B,), as tf.image.psnr with max_val 1; 100 dB at most."""
    return -10.0 / math.log(10.0) * ops.log(ops.maximum(mse(a, b), 1e-10))


@dataclass(frozen=True)
class Loss:
    """``weight * distortion + lmbda * rate``, or the form for a range of rates, see :meth:`__call__`.

    Args:
        distortion: ``ssim-l1``: alpha (1 - SSIM) + (1 - alpha) MAE; ``mse``: on the scale 0..255, as the
            literature's lambdas have it; ``ms-ssim``: 1 - MS-SSIM.
        weight: factor of the distortion.
        alpha: share of the structural term in ``ssim-l1``.
        lmbda: price of one bit per pixel.
        balance: gradients of an image are divided by its loss to this power: with 0 images of much detail
            outweigh all others, with 1 (the gradient of the mean logarithm) a per cent of any counts the same.
    """

    distortion: str = "ssim-l1"
    weight: float = 1.0
    alpha: float = 0.75
    lmbda: float = 0.01
    balance: float = 0.0

    def __post_init__(self) -> None:
        if self.distortion not in DISTORTIONS:
            raise TrainingError(f"unknown loss {self.distortion!r}: expected one of {', '.join(DISTORTIONS)}")
        shares = 0 <= self.alpha <= 1 and 0 <= self.balance <= 1
        if not (shares and self.weight >= 0 and self.lmbda >= 0):
            raise TrainingError(
                "loss: expected 0 <= alpha <= 1, 0 <= balance <= 1, weight >= 0 and lmbda >= 0, got alpha "
                f"{self.alpha}, balance {self.balance}, weight {self.weight}, lmbda {self.lmbda}"
            )

    def __call__(self, images: Any, regenerated: Any, bits: Any, lambdas: Any = None) -> tuple[Any, Any]:
        """Images (B, H, W, C) in [0, 1], bits (B,) -> loss, and rate in bits per pixel, both scalar.

        With ``lambdas`` (B,), each image has its own weight in place of ``lmbda``: ``(lambda * weight *
        distortion + rate) / sqrt(lambda)``, whose gradients are alike over the whole range of rates.
        """
        rates = bits / (int(images.shape[1]) * int(images.shape[2]))
        distortions = self.weight * DISTORTIONS[self.distortion](images, regenerated, self.alpha)
        if lambdas is None:
            each = distortions + self.lmbda * rates
        else:
            root = ops.sqrt(lambdas)
            each = root * distortions + rates / root
        return ops.mean(self._balanced(each)), ops.mean(rates)

    def _balanced(self, each: Any) -> Any:
        """Losses (B,), the same, with the gradients that ``balance`` asks for."""
        if not self.balance:
            return each
        size = ops.stop_gradient(ops.maximum(each, SMALLEST_LOSS))
        moving = each / size**self.balance
        return ops.stop_gradient(each - moving) + moving


def _ssim_l1(a: Any, b: Any, alpha: float) -> Any:
    return alpha * (1 - ssim(a, b)) + (1 - alpha) * mae(a, b)


DISTORTIONS: Mapping[str, Callable[[Any, Any, float], Any]] = MappingProxyType(
    {
        "ssim-l1": _ssim_l1,
        "mse": lambda a, b, _alpha: 255.0**2 * mse(a, b),
        "ms-ssim": lambda a, b, _alpha: 1 - ms_ssim(a, b),
    }
)
