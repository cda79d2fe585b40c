"""A network held against images: whether they fit, what comes back, and the metrics over a split."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from attar.errors import TrainingError
from attar.train import datasets, losses, network, steps
from attar.train.parallel import ALONE, Team
from attar.train.progress import Row
from attar.train.tensors import to_numpy

VALIDATION_BATCH = 256  # at most, and not more than about 16 megapixels at once


def check_images(net: network.Network, data: datasets.Dataset) -> None:
    """Refuse a data set whose images the network cannot take.

    Raises:
        TrainingError: with both sizes.
    """
    expected, found = net.spec.input_shape, data.shape
    if any(want is not None and want != got for want, got in zip(expected, found, strict=True)):
        raise TrainingError(
            f"the model takes images of {_shape(expected)}, the data set {data.name} has {_shape(found)}"
        )
    multiple = network.geometry(net).multiple
    if any(side % multiple for side in found[:2]):
        raise TrainingError(
            f"the model takes sides that are multiples of {multiple}, the data set {data.name} has "
            f"{_shape(found)}: give such a --crop, or --height and --width"
        )


def regenerate(net: network.Network, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (B, H, W, C) uint8 -> what a file of each gives back, uint8, and bytes of its latents (B,)."""
    with _no_gradient():
        forward = net(images, training=False)
        return _to_pixels(forward.regenerated), to_numpy(forward.bits) / 8


def measure_split(
    net: network.Network,
    loss: losses.Loss,
    split: datasets.Split,
    between: Callable[[], None] = lambda: None,
    quality: float | None = None,
    team: Team = ALONE,
) -> Row:
    """The four METRICS over a split, with rounded latents, averaged over its images.

    ``between`` is called before every batch, and may raise. ``quality``: of a network of variable rate.
    The processes of a ``team`` take the batches in turns, and all get the means.
    """
    totals = np.zeros(len(steps.METRICS) + 1)  # and the number of images
    pixels = math.prod(split.take(np.arange(1)).shape)
    size = max(1, min(VALIDATION_BATCH, (1 << 24) // pixels))
    chosen = {} if quality is None else {"quality": quality}
    with _no_gradient():
        for first in range(0, len(split), size * team.size):
            between()
            start = first + team.rank * size
            if start < len(split):
                images = split.take(np.arange(start, min(start + size, len(split))))
                _, metrics = steps.measure(net, loss, images, training=False, **chosen)
                totals += len(images) * np.append(to_numpy(metrics).astype(np.float64), 1.0)
    *sums, count = team.total(totals).tolist()
    return {name: value / count for name, value in zip(steps.METRICS, sums, strict=True)}


def _to_pixels(values: Any) -> np.ndarray:
    return np.rint(np.clip(to_numpy(values), 0, 1) * 255).astype(np.uint8)


def _no_gradient() -> contextlib.AbstractContextManager[Any]:
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def _shape(shape: tuple[int | None, ...]) -> str:
    return "x".join("any" if n is None else str(n) for n in shape)
