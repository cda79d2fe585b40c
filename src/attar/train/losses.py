"""Distortions and metrics as differentiable Keras operations, on images (B, H, W, C) in [0, 1].

``loss = weight * distortion + lmbda * rate``, the rate in bits per pixel. The seed's distortion is
``alpha * (1 - SSIM) + (1 - alpha) * MAE``. Reference implementations in plain numpy, and the exact definitions, are in
:mod:`attar.measure.metrics`; the tests hold the two together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from attar.errors import TrainingError

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # Wang et al. 2004
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003
SMALLEST_CONTRAST = 1e-6  # keeps the gradient of MS-SSIM's fractional powers finite


def gaussian_rows(size: int) -> np.ndarray:
    """The Gaussian window's matrix (size - 10, size): a valid convolution along one axis as one product.

    Sizes below 11 shrink the window to the largest odd size that fits, as :func:`attar.measure.metrics.ssim` does.
    """
    window = min(WINDOW, size if size % 2 else size - 1)
    taps = np.exp(-((np.arange(window) - window // 2) ** 2) / (2 * SIGMA**2))
    rows = np.zeros((size - window + 1, size), np.float32)
    for row in range(len(rows)):
        rows[row, row : row + window] = taps / taps.sum()
    return rows


def _ssim_terms(a: Any, b: Any) -> tuple[Any, Any]:
    """Mean SSIM and mean contrast-structure term of each image and channel, both (B, C)."""
    height, width = int(a.shape[1]), int(a.shape[2])
    down, across = gaussian_rows(height), gaussian_rows(width)
    # One filter call for all five moments: (5B, H, W, C) -> (C-major) products with the two Toeplitz matrices.
    moments = ops.concatenate([a, b, a * a, b * b, a * b], axis=0)
    moments = ops.transpose(moments, (0, 3, 1, 2))  # (5B, C, H, W)
    moments = ops.matmul(ops.matmul(down, moments), across.T)
    mean_a, mean_b, aa, bb, ab = ops.split(moments, 5, axis=0)
    c1, c2 = K1**2, K2**2
    contrast = (2 * (ab - mean_a * mean_b) + c2) / (aa + bb - mean_a**2 - mean_b**2 + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return ops.mean(luminance * contrast, axis=(2, 3)), ops.mean(contrast, axis=(2, 3))


def ssim(a: Any, b: Any) -> Any:
    """SSIM of each image, (B,), as tf.image.ssim: 11x11 Gaussian of sigma 1.5, valid windows, mean over channels."""
    return ops.mean(_ssim_terms(a, b)[0], axis=-1)


def ms_ssim(a: Any, b: Any) -> Any:
    """Multi-scale SSIM of each image, (B,): five scales, or as many as leave 11 pixels, weights renormalised."""
    smallest = min(int(a.shape[1]), int(a.shape[2]))
    scales = max(1, min(len(SCALE_WEIGHTS), int(math.log2(max(smallest, WINDOW) / WINDOW)) + 1))
    weights = np.asarray(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    product: Any = 1.0
    for scale, weight in enumerate(weights):
        full, contrast = _ssim_terms(a, b)
        term = full if scale == scales - 1 else contrast
        product = product * ops.maximum(term, SMALLEST_CONTRAST) ** float(weight)
        if scale < scales - 1:
            a, b = (ops.average_pool(x, 2, 2, "valid", "channels_last") for x in (a, b))
    return ops.mean(product, axis=-1)


def mse(a: Any, b: Any) -> Any:
    """Mean squared error of each image, (B,)."""
    return ops.mean(ops.square(a - b), axis=(1, 2, 3))


def mae(a: Any, b: Any) -> Any:
    """Mean absolute error of each image, (B,)."""
    return ops.mean(ops.abs(a - b), axis=(1, 2, 3))


def psnr(a: Any, b: Any) -> Any:
    """Peak signal-to-noise ratio of each image in dB, (B,), as tf.image.psnr with max_val 1; 100 dB at most."""
    return -10.0 / math.log(10.0) * ops.log(ops.maximum(mse(a, b), 1e-10))


@dataclass(frozen=True)
class Loss:
    """``weight * distortion + lmbda * rate``.

    Args:
        distortion: ``ssim-l1``, ``mse`` or ``ms-ssim``.
        weight: factor of the distortion.
        alpha: share of the structural term in ``ssim-l1`` (and of MS-SSIM against L1 in ``ms-ssim``).
        lmbda: price of one bit per pixel.
    """

    distortion: str = "ssim-l1"
    weight: float = 1.0
    alpha: float = 0.75
    lmbda: float = 0.01

    def __post_init__(self) -> None:
        if self.distortion not in DISTORTIONS:
            raise TrainingError(f"unknown loss {self.distortion!r}: expected one of {', '.join(DISTORTIONS)}")
        if not (0 <= self.alpha <= 1 and self.weight >= 0 and self.lmbda >= 0):
            raise TrainingError(
                f"loss: expected 0 <= alpha <= 1, weight >= 0 and lmbda >= 0, "
                f"got alpha {self.alpha}, weight {self.weight}, lmbda {self.lmbda}"
            )

    def __call__(self, images: Any, regenerated: Any, bits: Any) -> tuple[Any, Any]:
        """Images and regenerated (B, H, W, C) in [0, 1], bits (B,) -> (loss, rate in bits per pixel), both scalar."""
        pixels = int(images.shape[1]) * int(images.shape[2])
        rate = ops.mean(bits) / pixels
        distortion = ops.mean(DISTORTIONS[self.distortion](images, regenerated, self.alpha))
        return self.weight * distortion + self.lmbda * rate, rate


DISTORTIONS: dict[str, Callable[[Any, Any, float], Any]] = {
    "ssim-l1": lambda a, b, alpha: alpha * (1 - ssim(a, b)) + (1 - alpha) * mae(a, b),
    "mse": lambda a, b, alpha: 255.0**2 * mse(a, b),  # noqa: ARG005 - the literature's scale: 0.0016..0.06 per bpp
    "ms-ssim": lambda a, b, alpha: 1 - ms_ssim(a, b),  # noqa: ARG005
}
