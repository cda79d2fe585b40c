"""What a request wants of a codec: a quality, or a target that the best file is to keep to."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from attar.apps.web.limits import Refusal
from attar.codec.targets import KINDS, Target

__all__ = ["Goal", "one_of"]

BOTH = "one of quality and the targets may be given"


def _goal(
    target_bytes: Annotated[int | None, Query(gt=0, le=1 << 40)] = None,
    target_bpp: Annotated[float | None, Query(gt=0, le=1000, allow_inf_nan=False)] = None,
    target_psnr: Annotated[float | None, Query(gt=0, le=1000, allow_inf_nan=False)] = None,
    target_ssim: Annotated[float | None, Query(gt=0, le=1, allow_inf_nan=False)] = None,
) -> Target | None:
    given = dict(zip(KINDS, (target_bytes, target_bpp, target_psnr, target_ssim), strict=True))
    targets = [Target(kind, value) for kind, value in given.items() if value is not None]
    if len(targets) > 1:
        raise Refusal(400, BOTH)
    return targets[0] if targets else None


Goal = Annotated[Target | None, Depends(_goal)]
"""The target of a request, or None; the parameters are those of the command line."""


def one_of(quality: float | None, target: Target | None) -> None:
    """Refuse a request that names both."""
    if quality is not None and target is not None:
        raise Refusal(400, BOTH)
