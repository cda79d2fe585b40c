"""What goes into the networks and comes out of them: levels of quality, latents, pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.codec.tables import INT32
from attar.errors import BundleError, FormatError

__all__ = ["as_coded", "check_latent", "levels", "smallest", "to_pixels", "to_symbols"]


def levels(qualities: Sequence[int]) -> NDArray[np.float32]:
    """Qualities 1..100 as the networks take them, 0 to 1; a single rate, 0, is of no account to them."""
    return np.array([max(quality - 1, 0) / 99 for quality in qualities], dtype=np.float32)


def check_latent(latent: NDArray[Any], expected: tuple[int, ...], source: str) -> None:
    """Raise :class:`BundleError`, naming ``source``, unless a latent has the shape and can be rounded to int32."""
    if latent.shape != expected:
        raise BundleError(
            f"{source}: analysis gave a latent of shape {latent.shape}; the manifest says {expected}"
        )
    if not np.isfinite(latent).all() or np.abs(latent).max(initial=0) >= INT32.max:
        raise BundleError(f"{source}: analysis gave latents that are not finite or exceed int32")


def to_symbols(latent: NDArray[Any]) -> NDArray[np.int32]:
    """Rounded half to even."""
    symbols: NDArray[np.int32] = np.rint(latent).astype(np.int32)
    return symbols


def to_pixels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What the synthesis gave, (..., C) within 0..1 and overwritten, as uint8; FormatError for NaN."""
    if np.isnan(image.min(initial=0)):
        raise FormatError("the symbols are far outside of what the model can decode")
    np.clip(image, 0, 1, out=image)
    image *= np.float32(255)
    return _rounded(image)


def as_coded(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Pixels (..., C) of a network for an image of that many channels, alpha included: gray is a mean of colours."""
    if channels >= 3 or pixels.shape[-1] != 3:
        return pixels
    return _rounded(pixels.mean(axis=-1, keepdims=True))


def smallest(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in 8 bits, where they are whole numbers that have room there."""
    for kind in (np.int8, np.uint8):
        with np.errstate(invalid="ignore"):
            small = values.astype(kind)
        if np.array_equal(small, values):
            return small
    return values


def _rounded(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Half to even; ``values`` are within 0..255, and are overwritten."""
    rounded: NDArray[np.uint8] = np.rint(values, out=values).astype(np.uint8)
    return rounded
