"""Steps of quantisation that differ from place to place, by what the hyper-latent tells of the place.

::

    S (tables of the first pass, integers) --weights, gain and offset of the quality--> shift, one integer a position
    table of an element = its index - shift           step of all elements there = exp(unit * shift)

Where tables are wide there is much detail, in which errors are seen less, and a unit of which costs more bits than it
saves error at low rates; there, steps are coarser. The integers are the same on every machine; the step itself is a
floating-point number that only pixels depend on, as the means are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attar.codec.container import ANY_SIZE, read_header
from attar.codec.manifest import FRACTION_BITS, Hyperprior, Manifest

__all__ = ["LARGEST_SHIFT", "Steps"]

LARGEST_SHIFT = 32
"""Shifts are kept to this on both sides."""

Indexes = NDArray[np.uint8]
Shift = NDArray[np.int64]


class Steps:
    """The steps of one file, whose ``header`` tells the quality; all are 1 where the ``prior`` has none."""

    def __init__(self, manifest: Manifest, prior: Hyperprior, header: bytes) -> None:
        self.scales, self.local = prior.scales, prior.steps
        if self.local is not None:
            quality = read_header(header, max_pixels=ANY_SIZE).quality
            place = quality - manifest.qualities[0] if manifest.qualities else 0
            self.gain, self.offset = self.local.gains[place], self.local.offsets[place]
            self.weights = np.array(self.local.weights, np.int64)

    def shift(self, index: Indexes) -> Shift:
        """Table indexes (h, w, L) as the hyper-latent chooses them -> shifts (h, w, 1)."""
        if self.local is None:
            return np.zeros((*index.shape[:2], 1), np.int64)
        total = self.gain * (index.astype(np.int64) @ self.weights) + self.offset
        found = (total + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS
        shift: Shift = np.clip(found, -LARGEST_SHIFT, LARGEST_SHIFT)[..., None]
        return shift

    def step(self, shift: NDArray[np.number]) -> NDArray[np.float32]:
        """Steps of shifts, each (h, w, 1)."""
        steps: NDArray[np.float32] = np.exp((self.local.unit if self.local else 0.0) * shift).astype(
            np.float32
        )
        return steps

    def shifted(self, index: Indexes, shift: NDArray[np.number]) -> Indexes:
        """The tables that code elements (h, w, L), whose indexes know nothing of steps."""
        if self.local is None:
            return index
        found: Indexes = np.clip(index - shift.astype(np.int16), 0, self.scales - 1).astype(np.uint8)
        return found
