"""The distortion between two pictures as one row: what ``attar compare --json`` and the web's compare answer."""

from __future__ import annotations

from typing import Any

from attar.codec.images import Picture
from attar.errors import ImageError

__all__ = ["check_comparable", "compare_pictures"]


def compare_pictures(
    original: Picture, other: Picture, *, names: tuple[str, str], size: int
) -> dict[str, Any]:
    """The size and every metric of ``other``, from a file of ``size`` bytes, against ``original``.

    ``names`` are those of both in the row and in errors. Raises :class:`ImageError` for pictures of unequal size
    and for transparent ones.
    """
    from attar.measure.worker import distortions

    check_comparable(original, other, names=names)
    height, width = original.pixels.shape[:2]
    row = {"a": names[0], "b": names[1], "width": width, "height": height, "bytes": size}
    return row | {"bpp": 8 * size / (height * width)} | distortions(original.pixels, other.pixels)


def check_comparable(original: Picture, other: Picture, *, names: tuple[str, str]) -> None:
    """Raise :class:`ImageError`, naming the pictures, unless both are opaque and of one size."""
    for name, picture in zip(names, (original, other), strict=True):
        if picture.alpha is not None and picture.alpha.min() < 255:
            raise ImageError(f"{name}: has an alpha channel; opaque images are compared: flatten it first")
    height, width = original.pixels.shape[:2]
    if other.pixels.shape[:2] != (height, width):
        raise ImageError(
            f"images of unequal size cannot be compared: {names[0]} has {width} x {height} pixels, "
            f"{names[1]} {other.pixels.shape[1]} x {other.pixels.shape[0]}"
        )
