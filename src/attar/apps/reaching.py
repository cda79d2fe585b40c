"""Targets as every door reaches them: the file that keeps to one, and the score that the search goes by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attar.codec.targets import Target, reach

if TYPE_CHECKING:
    from attar.codec.codec import Codec
    from attar.codec.images import Picture

__all__ = ["compress_to", "scorer"]


def compress_to(target: Target, codec: Codec, picture: Picture, effort: int = 0) -> bytes:
    """The file of a picture, at the best setting that keeps to ``target``."""

    def attempt(quality: int) -> bytes:
        return codec.compress(picture, quality=quality or None, effort=effort)

    score = scorer(target, picture.pixels, lambda data: codec.decode(data).pixels)
    return reach(target, codec.manifest.qualities or (0, 0), attempt, score)


def scorer(
    target: Target, pixels: NDArray[np.uint8], decode: Callable[[bytes], NDArray[Any]]
) -> Callable[[bytes], float]:
    """The size or quality of a file of the image ``pixels``, in the unit of ``target``.

    ``decode`` gives a file's pixels; it is only asked for targets of quality. Identical images score infinity.
    """
    from attar.measure import metrics

    def score(data: bytes) -> float:
        if target.limits_size:
            return (
                len(data) if target.kind == "bytes" else 8 * len(data) / (pixels.shape[0] * pixels.shape[1])
            )
        found = getattr(metrics, target.kind)(pixels, decode(data))
        return math.inf if found is None else float(found)

    return score
