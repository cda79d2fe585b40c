"""The one form that all images of a data set are brought into: size, gray or RGB."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from attar.codec.images import Picture
from attar.errors import DatasetError

__all__ = ["Form", "conform", "opaque"]

MAX_SIDE = 16384
"""The largest height, width or crop that may be asked for, in pixels."""


@dataclass(frozen=True)
class Form:
    """What every image is made into. Raises :class:`DatasetError` on values out of range."""

    height: int | None = None
    width: int | None = None
    channels: int | None = None
    """1 (gray), 3 (RGB), or None: gray if every image is gray, otherwise RGB."""
    crop: int | None = None

    def __post_init__(self) -> None:
        for name in ("height", "width", "crop"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_SIDE:
                raise DatasetError(f"{name} {value}: expected 1 to {MAX_SIDE} pixels")
        if (self.height is None) != (self.width is None):
            raise DatasetError(
                f"height {self.height} and width {self.width}: give both to resize, or neither"
            )
        if self.channels not in (None, 1, 3):
            raise DatasetError(f"channels {self.channels}: expected 1 (gray) or 3 (RGB)")


def opaque(picture: Picture) -> np.ndarray:
    """Lay a picture over white: uint8 (H, W, 1 or 3). White, as browsers and paper show it."""
    if picture.alpha is None:
        return picture.pixels
    alpha = picture.alpha[..., None].astype(np.uint32)
    return ((picture.pixels * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def conform(pixels: np.ndarray, form: Form) -> np.ndarray:
    """Make an image, uint8 (H, W, 1 or 3), one of the form wanted.

    Gray is Rec. 601 luma. Resizing is Pillow's antialiased Lanczos filter and goes straight to ``height`` x
    ``width``: only ``crop`` keeps proportions. An image smaller than the crop is mirrored at its edges, not
    enlarged: blur that is not in the photographs is not to be learnt.
    """
    height, width = form.height or pixels.shape[0], form.width or pixels.shape[1]
    channels = form.channels or pixels.shape[2]
    if (height, width, channels) != pixels.shape:
        image = Picture(pixels).to_pillow().convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        pixels = np.asarray(image).reshape(height, width, channels)
    if form.crop is not None and min(height, width) < form.crop:
        rows, columns = max(0, form.crop - height), max(0, form.crop - width)
        around = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
        pixels = np.pad(pixels, around, mode="symmetric")
    return pixels
