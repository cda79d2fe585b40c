"""Targets as every door reaches them: the file that keeps to one, and the score that the search goes by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attar.codec.targets import Target, reach

if TYPE_CHECKING:
    from attar.codec.annealing import Watch
    from attar.codec.codec import Codec
    from attar.codec.images import Picture

__all__ = ["compress_to", "scorer"]


def compress_to(
    target: Target, codec: Codec, picture: Picture, effort: int = 0, watch: Watch | None = None
) -> bytes:
    """The file of a picture, at the best setting that keeps to ``target``; what no quality matters to is done once.

    ``watch`` is told of the steps of each attempt, as by :meth:`attar.Codec.compress`.
    """
    prepared = codec.prepared(picture)

    def attempt(quality: int) -> bytes:
        return prepared.compress(quality or None, effort=effort, watch=watch)

    score = scorer(target, picture.pixels, prepared.strips)
    return reach(target, codec.manifest.qualities or (0, 0), attempt, score)


def scorer(
    target: Target, pixels: NDArray[np.uint8], decode: Callable[[bytes], Iterable[NDArray[np.uint8]]]
) -> Callable[[bytes], float]:
    """The size or quality of a file of the image ``pixels``, in the unit of ``target``.

    ``decode`` gives a file's pixels, in strips of rows from the top; it is only asked for targets of quality.
    Identical images score infinity.
    """
    from attar.measure import metrics

    def score(data: bytes) -> float:
        if target.kind == "bytes":
            return len(data)
        if target.kind == "bpp":
            return 8 * len(data) / (pixels.shape[0] * pixels.shape[1])
        measure = metrics.psnr_of_strips if target.kind == "psnr" else metrics.ssim_of_strips
        found = measure(pixels, decode(data))
        return math.inf if found is None else found

    return score
