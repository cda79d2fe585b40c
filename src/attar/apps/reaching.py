"""What a file reaches of a target: the score that every target search of the doors goes by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.codec.targets import Target

__all__ = ["scorer"]


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
