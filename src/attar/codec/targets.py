"""Reach a size or a quality: the best setting of a model that keeps to it, found by bisection."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from attar.errors import TargetError

__all__ = ["KINDS", "Target", "reach"]

KINDS = {"bytes": "bytes", "bpp": "bpp", "psnr": "dB PSNR", "ssim": "SSIM"}
"""Kinds of targets and the unit of each; the first two are limits from above, the others from below."""


@dataclass(frozen=True)
class Target:
    """``bytes`` and ``bpp``: the file is to be no larger; ``psnr`` (dB) and ``ssim``: the image no worse."""

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TargetError(f"no target {self.kind!r}; known are {', '.join(KINDS)}")
        if not math.isfinite(self.value) or self.value <= 0 or (self.kind == "ssim" and self.value > 1):
            raise TargetError(
                f"a target of {self.value:g} {KINDS[self.kind]} is out of the reach of any codec"
            )

    @property
    def limits_size(self) -> bool:
        """Whether the target is an upper limit of the size, rather than a lower one of the quality."""
        return self.kind in ("bytes", "bpp")

    def met(self, score: float) -> bool:
        """Whether a file of this size or quality keeps to the target."""
        return score <= self.value if self.limits_size else score >= self.value


def reach(
    target: Target,
    qualities: tuple[int, int],
    attempt: Callable[[int], bytes],
    score: Callable[[bytes], float],
) -> bytes:
    """The file of highest quality within a size, or of least quality that is good enough.

    ``attempt`` codes at a quality of the range ``(lowest, highest)``, and ``score`` gives the size or quality
    of its file in the unit of ``target``. Every returned file has been scored: the target is kept even where
    the scores do not rise with the quality. Raises :class:`TargetError`, with what can be reached, when the
    extreme of the range does not meet the target. Makes at most ``2 + log2(highest - lowest)`` attempts.
    """
    safe, far = qualities if target.limits_size else qualities[::-1]
    found = attempt(safe)
    if not target.met(reached := score(found)):
        word = "most" if target.limits_size else "least"
        raise TargetError(
            f"at {word} {target.value:g} {KINDS[target.kind]} wanted; the model reaches {reached:.6g}"
            + (" at its only rate" if qualities[0] == qualities[1] else f" at quality {safe}")
        )
    while abs(far - safe) > 0:
        # Rounded away from `safe`, so that the far end of the range is tried too.
        middle = (safe + far + (far > safe)) // 2
        data = attempt(middle)
        if target.met(score(data)):
            found, safe = data, middle
        else:
            far = middle + (1 if safe > far else -1)
    return found
