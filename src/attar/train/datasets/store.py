"""Decoded images, kept in memory, or past 256 MB in one file that is mapped, and found again next time.

The file: all pixels, one image after the other; an index as JSON; then a trailer of 24 bytes: the index's
length, its CRC-32, and a magic. It is written under a temporary name and renamed: what has the name is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import zlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from attar.codec.files import atomic
from attar.errors import AttarError, DatasetError

__all__ = ["Decoded", "Images", "cache_path", "keep", "reopen"]

MEMORY_LIMIT = 256 * 2**20
"""Bytes of pixels up to which a data set stays in memory."""
MAGIC = b"attarpx1"
TRAILER = struct.Struct("<QQ8s")  # length of the index, its CRC-32, magic


@dataclass(frozen=True)
class Decoded:
    """One decoded image."""

    name: str
    part: int
    content: bytes  # 16 bytes: the digest of the encoded image
    pixels: np.ndarray = field(repr=False)  # uint8 (H, W, C)


@dataclass(frozen=True)
class Images:
    """All decoded images of a source: image i has ``sizes[i]`` and ``channels``, one follows the other."""

    pixels: np.ndarray = field(repr=False)  # uint8 (total,)
    sizes: np.ndarray = field(repr=False)  # int64 (N, 2): height, width
    channels: int
    digests: np.ndarray = field(repr=False)  # uint8 (N, 16), of the encoded images
    parts: np.ndarray = field(repr=False)  # int64 (N,): the split that the source puts each in
    names: Sequence[str] = field(default=(), repr=False)  # N, or none at all
    skipped: tuple[str, ...] = ()
    file: Path | None = None
    """Where the pixels are mapped from."""


def cache_path(place: str, form: str, state: bytes) -> Path:
    """Name the file that would keep the images of the source at ``place``, in ``state``, decoded to ``form``.

    In ``$ATTAR_CACHE``, or else in the platform's folder for caches. It may be removed at any time.
    """
    family = hashlib.blake2b(f"{place}\0{form}".encode("utf-8", "surrogateescape"), digest_size=6)
    now = hashlib.blake2b(state, digest_size=12)
    return _cache_folder() / "datasets" / f"{family.hexdigest()}-{now.hexdigest()}.pixels"


def _cache_folder() -> Path:
    if chosen := os.environ.get("ATTAR_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "attar"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "attar"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attar"


def keep(file: Path, decoded: Iterable[Decoded | str]) -> Images:
    """Keep decoded images, all of as many channels; a string among them is the line of a skipped one.

    Raises :class:`DatasetError` when they outgrow the memory limit and the cache cannot be written.
    """
    index: dict[str, list[Any]] = {
        key: [] for key in ("sizes", "channels", "digests", "parts", "names", "skipped")
    }
    waiting: list[np.ndarray] = []
    total = 0
    try:
        with ExitStack() as stack:
            output: BinaryIO | None = None
            for image in decoded:
                if isinstance(image, str):
                    index["skipped"].append(image)
                    continue
                _note(index, image)
                waiting.append(image.pixels.reshape(-1))
                total += image.pixels.size
                if output is None and total > MEMORY_LIMIT:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    output = stack.enter_context(stack.enter_context(atomic(file)).open("wb"))
                if output is not None:
                    _write(output, waiting)
            if output is not None:
                tail = json.dumps(index).encode()
                output.write(tail + TRAILER.pack(len(tail), zlib.crc32(tail), MAGIC))
    except (OSError, AttarError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{total >> 20} MB of decoded images could not be kept in {file.parent} ({error}): set "
            "ATTAR_CACHE to a folder with more room, or pass --height and --width for smaller images"
        ) from error
    if output is None:
        return _images(np.concatenate([np.empty(0, np.uint8), *waiting]), index, None)
    _remove_stale(file)
    images = reopen(file)
    if images is None:
        raise DatasetError(f"{file}, written just now, does not hold what was written: is the disk faulty?")
    return images


def reopen(file: Path) -> Images | None:
    """Map the images that :func:`keep` left in a file; None if there is none, or if it is damaged."""
    try:
        size = file.stat().st_size
        with file.open("rb") as source:
            source.seek(-TRAILER.size, os.SEEK_END)
            length, checksum, magic = TRAILER.unpack(source.read(TRAILER.size))
            total = size - TRAILER.size - length
            if magic != MAGIC or total <= 0:
                return None
            source.seek(total)
            tail = source.read(length)
    except OSError:
        return None
    if zlib.crc32(tail) != checksum:
        return None
    images = _images(np.memmap(file, np.uint8, "r", shape=(total,)).view(np.ndarray), json.loads(tail), file)
    return images if int(images.sizes.prod(axis=1).sum()) * images.channels == total else None


def _note(index: dict[str, list[Any]], image: Decoded) -> None:
    height, width, channels = image.pixels.shape
    index["channels"][:] = [channels]
    index["sizes"].append((height, width))
    index["digests"].append(image.content.hex())
    index["parts"].append(image.part)
    index["names"].append(image.name)


def _write(output: BinaryIO, waiting: list[np.ndarray]) -> None:
    output.writelines(pixels.data for pixels in waiting)
    waiting.clear()


def _images(pixels: np.ndarray, index: dict[str, list[Any]], file: Path | None) -> Images:
    return Images(
        pixels,
        np.array(index["sizes"], np.int64).reshape(-1, 2),
        index["channels"][0] if index["channels"] else 0,
        np.frombuffer(bytes.fromhex("".join(index["digests"])), np.uint8).reshape(-1, 16),
        np.array(index["parts"], np.int64),
        index["names"],
        tuple(index["skipped"]),
        file,
    )


def _remove_stale(file: Path) -> None:
    """Remove what was kept of earlier states of the same source."""
    family = file.name.partition("-")[0]
    for other in file.parent.glob(f"{family}-*{file.suffix}"):
        if other != file:
            try:
                other.unlink()
            except OSError:  # another run has it open, on a system that does not allow this
                continue
