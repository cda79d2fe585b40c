"""JPEG XL files from outside: their size and channels are read before libjxl is given them.

Layout of the first bits: ISO/IEC 18181-1, SizeHeader and ImageMetadata, as in libjxl's ``headers.cc``; of the
boxes of a container: ISO/IEC 18181-2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attar.codec.images import Picture, from_array
from attar.errors import ImageError, MissingExtraError

__all__ = ["Header", "header", "is_jxl", "read"]

BARE = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
SIZE_BITS = (9, 13, 18, 30)
DEPTHS = (8, 10, 12, None)
FLOAT = 32
HEADER_BYTES = 64
"""More than any header that is taken needs."""


@dataclass(frozen=True)
class Header:
    """``extra``: channels beside the colours, such as alpha; ``still``: neither animation nor preview."""

    width: int
    height: int
    bits: int
    extra: int
    still: bool


def is_jxl(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG XL file does, bare or in a container."""
    return data.startswith((BARE, CONTAINER))


def read(data: bytes, *, name: str, max_pixels: int) -> Picture:
    """The picture in a JPEG XL file, gray or RGB of 8 bits, with or without alpha, and without its metadata.

    Raises :class:`ImageError`, naming ``name``, for what is broken, larger than ``max_pixels`` or anything else,
    and :class:`MissingExtraError` without ``attar[measure]``.
    """
    found = header(data, name=name)
    if found.width * found.height > max_pixels:
        raise ImageError(
            f"{name}: {found.width} x {found.height} pixels, at most {max_pixels} are accepted: "
            "raise the limit with --max-pixels (max_pixels=)"
        )
    if not found.still or found.extra > 1 or found.bits != 8:
        raise ImageError(
            f"{name}: a still JPEG XL image of 8 bits with at most alpha beside its colours is taken; this one "
            f"has {found.bits} bits, {found.extra} extra channels{'' if found.still else ', and frames'}"
        )
    try:
        import imagecodecs
    except ImportError as error:
        raise MissingExtraError("imagecodecs", "measure") from error
    try:
        pixels: NDArray[np.uint8] = imagecodecs.jpegxl_decode(data, index=0, numthreads=1)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise ImageError(f"{name}: cannot be read: {error}") from error
    return from_array(pixels)


def header(data: bytes, *, name: str = "image") -> Header:
    """What the first bits say; raises :class:`ImageError` where they are no sound header."""
    try:
        return _header(_Bits(_codestream(data)))
    except (IndexError, StopIteration, ValueError) as error:
        raise ImageError(f"{name}: cannot be read: its JPEG XL header is cut short or unsound") from error


def _header(bits: _Bits) -> Header:
    width, height = _size(bits)
    if bits.take(1):  # all defaults: 8 bits, no alpha, a still image
        return Header(width, height, 8, 0, still=True)
    if bits.take(1):  # extra fields
        bits.take(3)  # orientation, which libjxl applies
        if bits.take(1):
            _size(bits)  # intrinsic size, which changes nothing
        if bits.take(1) or bits.take(1):  # preview, animation
            return Header(width, height, 8, 0, still=False)
    if bits.take(1):
        return Header(width, height, FLOAT, 0, still=True)
    depth = DEPTHS[bits.take(2)] or 1 + bits.take(6)
    bits.take(1)  # 16-bit buffers are enough
    extra = bits.take(2)
    if extra == 2:
        extra = 2 + bits.take(4)
    elif extra == 3:
        extra = 1 + bits.take(12)
    return Header(width, height, depth, extra, still=True)


def _size(bits: _Bits) -> tuple[int, int]:
    """Width and height."""
    small = bits.take(1)

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else 1 + bits.take(SIZE_BITS[bits.take(2)])

    height = side()
    if ratio := bits.take(3):
        across, down = RATIOS[ratio - 1]
        return height * across // down, height
    return side(), height


def _codestream(data: bytes) -> bytes:
    """The start of the code stream, after its two bytes of signature."""
    if data.startswith(CONTAINER):
        data = next(body for body in _boxes(data))
    if not data.startswith(BARE):
        raise ValueError("no code stream")
    return data[2 : 2 + HEADER_BYTES]


def _boxes(data: bytes) -> Iterator[bytes]:
    """Starts of the bodies of the boxes that hold the code stream."""
    at = len(CONTAINER)
    while at + 8 <= len(data):
        size, kind, body = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, body = int.from_bytes(data[body : body + 8]), body + 8
        if kind in (b"jxlc", b"jxlp"):
            body += 4 * (kind == b"jxlp")  # the number of the part
            yield data[body : body + HEADER_BYTES + 2]
        if size < body - at:  # 0: to the end of the file; else unsound
            return
        at += size


class _Bits:
    """Bits, least significant first; IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self.value = int.from_bytes(data, "little")
        self.left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next ``count`` bits as a number."""
        if count > self.left:
            raise IndexError("the bits are used up")
        found = self.value & ((1 << count) - 1)
        self.value >>= count
        self.left -= count
        return found
