"""Distortion between a reference image and its reconstruction: PSNR, SSIM, MS-SSIM, on RGB or on luma.

Every metric takes two arrays of one shape and one dtype: ``(H, W)``, ``(H, W, C)`` with 1 to 4 channels, or a
batch ``(B, H, W, C)``. The peak value (``max_val``) follows from the dtype: 255 for uint8, 65535 for uint16,
1 for floats in [0, 1]. One image gives a float, a batch a float64 array ``(B,)``, one value per image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.errors import ImageError

__all__ = [
    "MS_SSIM_MIN_SIDE",
    "luma",
    "ms_ssim",
    "psnr",
    "psnr_of_strips",
    "psnr_summed",
    "similarities",
    "ssim",
    "ssim_of_strips",
]

Array = NDArray[Any]
Planes = NDArray[np.float64]

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_MIN_SIDE = (WINDOW - 1) * 2 ** (len(MS_WEIGHTS) - 1) + 1
"""Shortest side, in pixels, whose coarsest of five scales still holds one 11 x 11 window: 161."""
LUMA_WEIGHTS = (0.299, 0.587, 0.114)
BLOCK = 1 << 18
"""Samples taken at once: keeps the working set in the cache, and memory flat for large images."""


def psnr(reference: Array, reconstruction: Array) -> Any:
    """Peak signal-to-noise ratio in dB: ``10 log10(max_val**2 / MSE)``, MSE over all pixels and channels.

    It is ``tf.image.psnr``, and what CompressAI and the literature call PSNR-RGB. One image gives a float, or
    ``None`` where the two are identical (the ratio does not exist); a batch gives ``(B,)``, infinite where
    identical.

    Raises :class:`attar.errors.ImageError` where shapes, dtypes or values do not fit each other.
    """
    a, b, batched = _pair(reference, reconstruction)
    return _decibels(_squared_errors(a, b).mean(axis=1), batched)


def psnr_summed(reference: Array, reconstruction: Array) -> Any:
    """PSNR in dB over the *sum* of the channels' MSEs: ``10 log10(max_val**2 / (MSE_R + MSE_G + MSE_B))``.

    Some older code and the system that Attar replaces define PSNR so. It is ``psnr - 10 log10(C)``: 4.77 dB
    less on RGB, equal on gray. Returns and raises as :func:`psnr`.
    """
    a, b, batched = _pair(reference, reconstruction)
    return _decibels(_squared_errors(a, b).sum(axis=1), batched)


def ssim(reference: Array, reconstruction: Array) -> Any:
    """Structural similarity, in [-1, 1], 1 for identical images; the mean over windows, then over channels.

    Wang, Bovik, Sheikh, Simoncelli 2004, as in ``tf.image.ssim``: 11 x 11 Gaussian window of sigma 1.5,
    windows wholly inside the image only, K1 = 0.01, K2 = 0.03, no down-sampling. Where a side is shorter than
    11 pixels the window shrinks to the largest odd size that fits (sigma stays 1.5), so that tiny images have
    a value too.

    Returns a float, or ``(B,)`` for a batch. Raises :class:`attar.errors.ImageError` as :func:`psnr`.
    """
    a, b, batched = _pair(reference, reconstruction)
    full, _ = _ssim_terms(a, b)
    return _per_image(full, a, batched)


def ms_ssim(reference: Array, reconstruction: Array) -> Any:
    """Multi-scale SSIM over five scales, in [0, 1]; computed per channel, then the mean over channels.

    Wang, Simoncelli, Bovik 2003: contrast-structure terms of scales 1-4 and the whole SSIM of scale 5, each
    raised to its weight (0.0448, 0.2856, 0.3001, 0.2363, 0.1333) and multiplied; negative terms count as 0.
    Scales are 2 x 2 averages; an odd side repeats its last row or column first, as in
    ``tf.image.ssim_multiscale``. Equals pytorch-msssim on sides divisible by 16.

    Returns a float, or ``(B,)`` for a batch. Raises :class:`attar.errors.ImageError` as :func:`psnr`, and for
    images whose shorter side is below ``MS_SSIM_MIN_SIDE`` (161) pixels.
    """
    a, b, batched = _pair(reference, reconstruction)
    _, height, width = a.shape
    if min(height, width) < MS_SSIM_MIN_SIDE:
        raise ImageError(
            f"MS-SSIM needs sides of at least {MS_SSIM_MIN_SIDE} pixels (five scales of an 11 x 11 window); "
            f"the image is {width} x {height}: use SSIM"
        )
    _, several = _both_ssims(a, b)
    return _per_image(several, a, batched)


def similarities(reference: Array, reconstruction: Array) -> tuple[Any, Any]:
    """``(ssim, ms_ssim)`` for the price of the second, which is None where the image is too small for it."""
    a, b, batched = _pair(reference, reconstruction)
    if min(a.shape[1:]) < MS_SSIM_MIN_SIDE:
        return _per_image(_ssim_terms(a, b)[0], a, batched), None
    one, several = _both_ssims(a, b)
    return _per_image(one, a, batched), _per_image(several, a, batched)


def psnr_of_strips(reference: Array, strips: Iterable[Array]) -> float | None:
    """:func:`psnr` of one image (H, W, C) and a reconstruction that comes in strips (h, W, C) from the top.

    Neither is ever held as floats, nor the strips together.
    """
    total, _ = _of_strips(reference, strips, 1, lambda a, b: _summed_errors(a, b).sum())
    error: Planes = np.array([total / np.asarray(reference).size])
    return _decibels(error, False)


def ssim_of_strips(reference: Array, strips: Iterable[Array]) -> float:
    """:func:`ssim` of one image (H, W, C) and a reconstruction that comes in strips (h, W, C) from the top."""
    size = _window(*np.shape(reference)[:2])
    total, windows = _of_strips(
        reference, strips, size, lambda a, b: _ssim_sums(a, b, size)[0].mean() / (a.shape[2] - size + 1)
    )
    return float(total / windows)


def luma(image: Array) -> NDArray[np.float64]:
    """Luma ``Y' = 0.299 R' + 0.587 G' + 0.114 B'`` (ITU-R BT.601, full range), unrounded floats in [0, 1].

    Takes ``(H, W, 3)`` or a batch ``(B, H, W, 3)`` of gamma-coded RGB, gives ``(H, W)`` or ``(B, H, W, 1)``;
    gray (``(H, W)`` or one channel) is its own luma. Alpha (2nd or 4th channel) is refused: blend it first.
    """
    image = np.asarray(image)
    scaled = image / _max_value(image)
    if image.ndim == 2:
        return scaled
    if image.ndim not in {3, 4} or image.shape[-1] not in {1, 3}:
        raise ImageError(f"luma takes (H, W), (H, W, 3) or (B, H, W, 3), not {image.shape}")
    gray = scaled[..., 0] if image.shape[-1] == 1 else scaled @ np.array(LUMA_WEIGHTS)
    return gray if image.ndim == 3 else gray[..., None]


def _max_value(image: Array) -> float:
    if image.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(image.dtype).max)
    if np.issubdtype(image.dtype, np.floating):
        return 1.0
    raise ImageError(f"a metric takes uint8, uint16, or floats in [0, 1], not {image.dtype}")


class _Lazy:
    """Images (B, H, W, C) as planes (B * C, H, W) of float64 in [0, 1], of which only what is read is ever made."""

    def __init__(self, images: Array) -> None:
        batch, height, width, channels = images.shape
        self.planes = images.transpose(0, 3, 1, 2)  # (B, C, H, W)
        self.scale = np.float64(1.0 / _max_value(images))
        self.shape = (batch * channels, height, width)

    def __getitem__(self, key: tuple[slice, slice]) -> Planes:
        channels = self.planes.shape[1]
        wanted = np.arange(*key[0].indices(self.shape[0]))
        part = self.planes[wanted // channels, wanted % channels, key[1]]
        return np.multiply(part, self.scale, order="C")


Source = Planes | _Lazy


def _pair(reference: Array, reconstruction: Array) -> tuple[_Lazy, _Lazy, bool]:
    """Check two images; give the planes of both, and whether they were a batch."""
    a, b = np.asarray(reference), np.asarray(reconstruction)
    if a.shape != b.shape:
        raise ImageError(f"images of unequal shapes cannot be compared: {a.shape} and {b.shape}")
    max_value = _max_value(a)
    if max_value != _max_value(b):
        raise ImageError(f"{a.dtype} and {b.dtype} have different ranges: convert one image first")
    if a.ndim not in {2, 3, 4} or 0 in a.shape or (a.ndim > 2 and a.shape[-1] > 4):
        raise ImageError(
            f"a metric takes (H, W), (H, W, C) or (B, H, W, C) with 1 to 4 channels, not {a.shape}"
        )
    if np.issubdtype(a.dtype, np.floating):
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise ImageError("an image holds values that are not finite (NaN or infinity)")
        if a.min() < -1e-3 or a.max() > 1.001:
            raise ImageError(
                f"a float reference lies in [0, 1]; this one spans [{a.min():g}, {a.max():g}]: scale it"
            )
    shape = {2: (1, *a.shape, 1), 3: (1, *a.shape), 4: a.shape}[a.ndim]
    return _Lazy(a.reshape(shape)), _Lazy(b.reshape(shape)), a.ndim == 4


def _of_strips(
    reference: Array, strips: Iterable[Array], size: int, measure: Callable[[_Lazy, _Lazy], Any]
) -> tuple[float, int]:
    """The sum of a measure of windows of ``size`` rows over all of them, and the number of these rows of windows."""
    reference = np.asarray(reference)
    held: Array = reference[:0]
    total, rows, top = 0.0, 0, 0
    for strip in strips:
        held = np.concatenate([held, strip]) if len(held) else np.asarray(strip)
        if len(held) < size:
            continue
        a, b, _ = _pair(reference[top : top + len(held)], held)
        total += float(measure(a, b))
        found = len(held) - size + 1
        rows, top, held = rows + found, top + found, held[found:]
    if top + len(held) != len(reference):
        raise ImageError(f"strips of {top + len(held)} rows together, of an image of {len(reference)}")
    return total, rows


def _squared_errors(a: _Lazy, b: _Lazy) -> Planes:
    """Mean squared error of each channel of each image, (B, C)."""
    _, height, width = a.shape
    return _summed_errors(a, b).reshape(a.planes.shape[:2]) / (height * width)


def _summed_errors(a: _Lazy, b: _Lazy) -> Planes:
    """Sum of the squared differences of each plane."""
    sums = np.zeros(a.shape[0])
    for planes, rows in _blocks(*a.shape, 1):
        difference = a[planes, rows] - b[planes, rows]
        sums[planes] += np.square(difference, out=difference).sum(axis=(1, 2))
    return sums


def _decibels(error: Planes, batched: bool) -> Any:
    if batched:
        with np.errstate(divide="ignore"):
            return -10 * np.log10(error)
    return float(-10 * np.log10(error[0])) if error[0] > 0 else None


def _per_image(values: Planes, images: _Lazy, batched: bool) -> Any:
    means = values.reshape(images.planes.shape[:2]).mean(axis=1)
    return means if batched else float(means[0])


def _halve(planes: Source) -> Planes:
    """2 x 2 averages of ``(P, H, W)``; an odd side repeats its last line first."""
    count, height, width = planes.shape
    out = np.empty((count, -(-height // 2), -(-width // 2)))
    step = max(2, BLOCK // width // 2 * 2)
    for plane in range(count):
        for top in range(0, height, step):
            part = planes[slice(plane, plane + 1), slice(top, min(top + step, height))][0]
            part = np.pad(part, ((0, len(part) % 2), (0, width % 2)), mode="edge")
            rows = part[::2] + part[1::2]
            np.multiply(rows[:, ::2] + rows[:, 1::2], 0.25, out=out[plane, top // 2 : top // 2 + len(rows)])
    return out


def _both_ssims(x: Source, y: Source) -> tuple[Planes, Planes]:
    """SSIM at full size, and MS-SSIM, of each plane."""
    ssim_of_scale, product = [], np.ones(x.shape[0])
    for scale, weight in enumerate(MS_WEIGHTS):
        if scale:
            x, y = _halve(x), _halve(y)
        full, contrast = _ssim_terms(x, y)
        ssim_of_scale.append(full)
        term = full if scale == len(MS_WEIGHTS) - 1 else contrast
        product *= np.maximum(term, 0) ** weight
    return ssim_of_scale[0], product


def _window(height: int, width: int) -> int:
    """Side of the windows of SSIM."""
    shortest = min(height, width)
    return WINDOW if shortest >= WINDOW else shortest - 1 + shortest % 2


def _ssim_terms(a: Source, b: Source) -> tuple[Planes, Planes]:
    """Means over all windows of SSIM and of its contrast-structure factor, per plane: ``(P,), (P,)``."""
    _, height, width = a.shape
    size = _window(height, width)
    full, contrast = _ssim_sums(a, b, size)
    windows = (height - size + 1) * (width - size + 1)
    return full / windows, contrast / windows


def _ssim_sums(a: Source, b: Source, size: int) -> tuple[Planes, Planes]:
    """Sums over all windows of ``size`` x ``size``, as :func:`_ssim_terms` has their means."""
    taps = np.exp(-0.5 * (np.arange(size) - size // 2) ** 2 / SIGMA**2)
    taps /= taps.sum()
    count, height, width = a.shape
    full, contrast = np.zeros(count), np.zeros(count)
    for planes, rows in _blocks(count, height, width, size):
        values = _ssim_block(a[planes, rows], b[planes, rows], taps)
        full[planes] += values[0]
        contrast[planes] += values[1]
    return full, contrast


def _blocks(count: int, height: int, width: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Cut ``(P, H, W)`` into blocks of about ``BLOCK`` samples whose windows tile the image exactly."""
    window_rows = height - size + 1
    rows = min(window_rows, max(1, BLOCK // width - size + 1))
    planes = max(1, BLOCK // (width * (rows + size - 1)))
    for first in range(0, count, planes):
        for top in range(0, window_rows, rows):
            yield slice(first, first + planes), slice(top, min(top + rows, window_rows) + size - 1)


def _ssim_block(a: Planes, b: Planes, taps: Planes) -> tuple[Planes, Planes]:
    c1, c2 = K1**2, K2**2
    mean_a, mean_b = _smooth(a, taps), _smooth(b, taps)
    product = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    covariance = _smooth(a * b, taps) - product
    variances = _smooth(a * a + b * b, taps) - squares
    contrast = (2 * covariance + c2) / (variances + c2)
    full = (2 * product + c1) / (squares + c1) * contrast
    return full.sum(axis=(1, 2)), contrast.sum(axis=(1, 2))


def _smooth(planes: Planes, taps: Planes) -> Planes:
    """Separable filter over windows wholly inside ``(P, H, W)``, transposed: ``(P, W - n + 1, H - n + 1)``.

    Windows along the rows' axis are a strided view that one matrix-vector product per row consumes, so each
    pass filters that axis and swaps; the mean over windows does not mind the transposition.
    """
    for _ in range(2):
        windows = np.lib.stride_tricks.sliding_window_view(planes, len(taps), axis=1)
        planes = np.ascontiguousarray((windows @ taps).swapaxes(1, 2))
    return planes
