"""Arrays that are made in parts: large images pass through a codec as tiles, each made when it is first read.

::

    image <- latent <- ... <- pixels      every plane makes a tile from a window of the planes before it

Whoever reads the last plane tile by tile has all others made in the order that they are needed in, with the
margins that they are needed with; what will not be read again is forgotten.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Area", "Derived", "Held", "Kept", "Padded", "Plane", "Tiled", "everything", "give_back"]

Array = NDArray[Any]


class Area(NamedTuple):
    """A rectangle of positions: rows ``top .. bottom - 1`` and columns ``left .. right - 1``."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def within(self, top: int = 0, left: int = 0) -> tuple[slice, slice]:
        """Index of the area in an array whose first element is the position ``(top, left)``."""
        return slice(self.top - top, self.bottom - top), slice(self.left - left, self.right - left)

    def common(self, other: Area) -> Area:
        """The positions that are in both."""
        return Area(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    def around(self, other: Area) -> Area:
        """The smallest area that has both in it."""
        return Area(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def scaled(self, factor: int) -> Area:
        """The same rectangle, counted in positions that are ``factor`` times as fine."""
        return Area(*(factor * edge for edge in self))

    def tiles(self, side: int | None) -> Iterator[Area]:
        """The parts of the area in a grid of squares from the origin on, row by row; itself without a side."""
        if side is None:
            yield self
            return
        for row in range(self.top // side, -(-self.bottom // side)):
            for column in range(self.left // side, -(-self.right // side)):
                square = Area(row * side, (row + 1) * side, column * side, (column + 1) * side)
                yield self.common(square)


class Plane(Protocol):
    """An array (H, W, C) of which any area can be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C)."""

    def read(self, area: Area) -> Array:
        """The elements of an area inside of the plane, (h, w, C); not to be written to."""


def everything(shape: tuple[int, ...]) -> Area:
    """All positions of an array of ``shape`` (H, W, ...)."""
    return Area(0, shape[0], 0, shape[1])


class Held:
    """A plane that is in memory."""

    def __init__(self, array: Array) -> None:
        self.array, self.shape = array, array.shape

    def read(self, area: Area) -> Array:
        """See :class:`Plane`."""
        return self.array[area.within()]


class Padded:
    """Pixels uint8 (H, W, C) as a model takes them: padded by repeating the edge, gray repeated for colour."""

    def __init__(self, pixels: Array, size: tuple[int, int], channels: int) -> None:
        self.pixels = pixels
        self.shape: tuple[int, ...] = (*size, channels)

    def read(self, area: Area) -> Array:
        """See :class:`Plane`."""
        height, width = self.pixels.shape[:2]
        inside = Area(
            min(area.top, height - 1),
            min(area.bottom, height),
            min(area.left, width - 1),
            min(area.right, width),
        )
        found = self.pixels[inside.within()]
        missing = (area.size[0] - found.shape[0], area.size[1] - found.shape[1])
        if any(missing):
            found = np.pad(found, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        return np.repeat(found, 3, axis=2) if found.shape[2] < self.shape[2] else found


class Derived:
    """A plane that is computed anew from an area whenever it is read."""

    def __init__(self, shape: tuple[int, ...], make: Callable[[Area], Array]) -> None:
        self.shape, self.read = shape, make


class Tiled:
    """A plane whose tiles are made when they are first read, and kept until they are forgotten.

    ``side`` of a tile, or None for a single one. A tile may be kept in a smaller type than ``dtype``.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, side: int | None, make: Callable[[Area], Array]
    ) -> None:
        self.shape, self.dtype, self.side, self.make = shape, np.dtype(dtype), side, make
        self.kept: dict[Area, Array] = {}

    def read(self, area: Area) -> Array:
        """See :class:`Plane`."""
        out: Array = np.empty(0)
        for tile in self.tiles(area):
            if tile not in self.kept:
                made = self.make(tile)
                self.kept[tile] = made if tile == everything(self.shape) else _apart(made)
            part = tile.common(area)
            found = self.kept[tile][part.within(tile.top, tile.left)]
            if part == area:
                return found.astype(self.dtype, copy=False)
            if not out.size:
                out = np.empty((*area.size, *found.shape[2:]), self.dtype)
            out[part.within(area.top, area.left)] = found
        return out

    def tiles(self, area: Area) -> Iterator[Area]:
        """The whole tiles that have positions of an area, row by row."""
        whole = everything(self.shape)
        if self.side is None:
            yield whole
            return
        for part in area.tiles(self.side):
            top, left = part.top // self.side * self.side, part.left // self.side * self.side
            yield whole.common(Area(top, top + self.side, left, left + self.side))

    def forget(self, row: int) -> None:
        """Drop the tiles above ``row``: no row above it will be read again."""
        for tile in [tile for tile in self.kept if tile.bottom <= row]:
            del self.kept[tile]


class Kept:
    """Arrays by the area that they were made for, until there are ``most`` bytes of them; then no more are kept."""

    def __init__(self, most: int) -> None:
        self.room = most
        self.arrays: dict[Area, dict[str, Array]] = {}

    def get(self, area: Area) -> dict[str, Array] | None:
        """What was kept of an area."""
        return self.arrays.get(area)

    def put(self, area: Area, arrays: dict[str, Array]) -> None:
        """Keep the arrays of an area, if there is room."""
        size = sum(array.nbytes for array in arrays.values())
        if size <= self.room and area not in self.arrays:
            self.room -= size
            self.arrays[area] = {name: _apart(array) for name, array in arrays.items()}


def give_back() -> None:
    """Return free memory to the system, where the C library keeps what lies between other blocks (glibc)."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def _apart(array: Array) -> Array:
    """A copy in memory of its own, which the system has back as soon as it is dropped.

    Among the short-lived arrays of the networks it would leave holes behind: 30 % more memory was measured.
    """
    if array.nbytes < mmap.PAGESIZE:
        return array.copy()
    copy = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
