"""Rival codecs at equal quality: for each, the smallest files whose mean SSIM is no lower than a given one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from attar.measure import metrics
from attar.measure.anchors import Absent, Anchor, Pixels, find
from attar.measure.worker import conform

__all__ = ["Match", "at_equal_ssim"]


@dataclass(frozen=True)
class Match:
    """One codec at the quality that was looked for; means over the images.

    ``quality`` is None for a codec of one size. ``reached`` is False where even its best quality has a lower SSIM
    than asked for; the numbers are then those of its best. ``psnr`` leaves identical images out, None if all are.
    """

    name: str
    version: str
    quality: float | None
    bytes: float
    ssim: float
    psnr: float | None
    reached: bool


def at_equal_ssim(
    images: Sequence[Pixels],
    ssim: float,
    names: Sequence[str],
    advance: Callable[[str], None] = lambda name: None,
) -> list[Match | Absent]:
    """Each named codec's smallest mean file size with a mean SSIM of at least ``ssim``, by bisection.

    ``images``: equal-sized uint8 (H, W, C). ``advance`` is called with a codec's name before it is measured. A codec
    that this machine lacks is an :class:`~attar.measure.anchors.Absent`.
    """
    matches: list[Match | Absent] = []
    for name in names:
        advance(name)
        anchor = find(name)
        matches.append(anchor if isinstance(anchor, Absent) else _match(anchor, images, ssim))
    return matches


def _match(anchor: Anchor, images: Sequence[Pixels], ssim: float) -> Match:
    if anchor.scale is None:
        return _measure(anchor, images, None, ssim)
    low, high = int(anchor.scale.lowest), int(anchor.scale.highest)
    best = _measure(anchor, images, high, ssim)
    while low < high and best.reached:
        middle = (low + high) // 2
        tried = _measure(anchor, images, middle, ssim)
        if tried.reached:
            best, high = tried, middle
        else:
            low = middle + 1
    return best


def _measure(anchor: Anchor, images: Sequence[Pixels], quality: float | None, ssim: float) -> Match:
    originals = np.stack(images)
    files = [anchor.encode(image, quality) for image in images]
    decoded = np.stack(
        [conform(anchor.decode(data), image) for data, image in zip(files, images, strict=True)]
    )
    decibels = metrics.psnr(originals, decoded)
    finite = decibels[np.isfinite(decibels)]
    found = float(np.mean(metrics.ssim(originals, decoded)))
    return Match(
        anchor.name,
        anchor.version,
        quality,
        float(np.mean([len(data) for data in files])),
        found,
        float(finite.mean()) if finite.size else None,
        found >= ssim,
    )
