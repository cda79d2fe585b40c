"""One image through any codec of ``attar benchmark``: its file's size, its picture, its distortion."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.apps.comparing import check_comparable
from attar.apps.reaching import scorer
from attar.codec import bundle, images
from attar.codec.images import Picture
from attar.codec.targets import Target, reach
from attar.errors import AttarError, ImageError
from attar.measure import anchors, worker
from attar.measure.anchors import Absent, Anchor

__all__ = ["CODECS", "Trial", "Trials"]

CODECS = ("jpeg", "webp", "avif", "jxl", "jp2", "png", "webp-lossless", "jxl-lossless")
"""Rivals that are offered; installed bundles come before them. No other name reaches the codecs' finder."""
KEPT_BYTES = 256 << 20
"""Of pictures that are kept, so that metrics need no second encoding."""


@dataclass(frozen=True)
class Trial:
    """An image that went through a codec. Times are in milliseconds, of one run."""

    codec: str
    version: str
    quality: float | None
    original: NDArray[np.uint8]
    decoded: NDArray[np.uint8]
    file_bytes: int
    encode_ms: float | None
    decode_ms: float

    @property
    def row(self) -> dict[str, Any]:
        """What is known without measuring the picture."""
        height, width = self.original.shape[:2]
        return {
            "codec": self.codec,
            "codec_version": self.version,
            "quality": self.quality,
            "width": width,
            "height": height,
            "bytes": self.file_bytes,
            "bpp": 8 * self.file_bytes / (height * width),
            "encode_ms": None if self.encode_ms is None else round(self.encode_ms, 3),
            "decode_ms": round(self.decode_ms, 3),
        }

    @cached_property
    def distortions(self) -> dict[str, Any]:
        """Every metric, as ``attar compare`` and ``attar benchmark`` have it."""
        return worker.distortions(self.original, self.decoded)

    @property
    def png(self) -> bytes:
        """The decoded picture; quick to write rather than small, as it only goes to the page."""
        return images.encode(Picture(worker.conform(self.decoded, self.original)), "PNG")


class Trials:
    """Finds codecs and remembers the latest trials. May be shared between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._anchors: dict[str, Anchor | Absent] = {}
        self._kept: OrderedDict[tuple[Any, ...], Trial] = OrderedDict()

    def codecs(self) -> list[dict[str, Any]]:
        """A row for each codec that may be asked for: what its quality means, or why it is absent."""
        rows: list[dict[str, Any]] = []
        for name in (*(f"attar:{name}" for name in bundle.installed()), *CODECS):
            found = self.find(name)
            if isinstance(found, Absent):
                rows.append({"name": name, "absent": found.reason})
                continue
            scale = found.scale
            row: dict[str, Any] = {"name": name, "version": found.version, "absent": None}
            if scale is not None:
                row |= {"unit": scale.unit, "lowest": scale.lowest, "highest": scale.highest}
            rows.append(row)
        return rows

    def run(
        self,
        data: bytes,
        read: Callable[[], Picture],
        codec: str,
        quality: float | None,
        target: Target | None,
    ) -> Trial:
        """The image of the file ``data``, which ``read`` gives, through ``codec`` at a quality or to a target."""

        def work() -> Trial:
            return through(self.present(codec), opaque(read()), quality, target)

        return self._once((hashlib.sha256(data).digest(), codec, quality, target), work)

    def opened(
        self, data: bytes, file: bytes, original: Callable[[], Picture], decode: Callable[[], Picture]
    ) -> Trial:
        """An existing ``file`` beside the image of the file ``data``, which the two functions give."""

        def work() -> Trial:
            first = original()
            start = time.perf_counter()
            second = decode()
            passed = 1e3 * (time.perf_counter() - start)
            check_comparable(first, second, names=("a", "b"))
            return Trial("file", "", None, first.pixels, second.pixels, len(file), None, passed)

        return self._once((hashlib.sha256(data).digest(), hashlib.sha256(file).digest()), work)

    def _once(self, key: tuple[Any, ...], work: Callable[[], Trial]) -> Trial:
        """The trial of that key, from what is kept where it is."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        trial = work()
        with self._lock:
            self._kept[key] = trial
            while (
                sum(kept.decoded.nbytes + kept.original.nbytes for kept in self._kept.values()) > KEPT_BYTES
            ):
                self._kept.popitem(last=False)
        return trial

    def present(self, name: str) -> Anchor:
        """A codec that may be asked for; raises :class:`AttarError` for others and for those that are absent."""
        if name not in CODECS and name.removeprefix("attar:") not in bundle.installed():
            raise AttarError(f"no codec is called {name[:80]!r}; /api/codecs lists them")
        found = self.find(name)
        if isinstance(found, Absent):
            raise AttarError(f"{name} is absent: {found.reason}")
        return found

    def find(self, name: str) -> Anchor | Absent:
        """A codec by a name that is known to be one of :meth:`codecs`, loaded once."""
        with self._lock:
            if name not in self._anchors:
                self._anchors[name] = anchors.find(name)
            return self._anchors[name]


def opaque(picture: Picture) -> NDArray[np.uint8]:
    """The pixels of a picture without transparency; raises :class:`ImageError` for others."""
    if picture.alpha is not None and picture.alpha.min() < 255:
        raise ImageError("image: has an alpha channel; opaque images are compared: flatten it first")
    return np.ascontiguousarray(picture.pixels)


def through(anchor: Anchor, pixels: NDArray[np.uint8], quality: float | None, target: Target | None) -> Trial:
    """``pixels`` through a codec at a quality (None: a middle one), or to a target."""
    if target is not None:
        quality = reached(anchor, pixels, target)
    elif anchor.scale is None:
        quality = None
    else:
        quality = anchors.check_quality(anchor, anchor.scale.defaults[-2] if quality is None else quality)
    start = time.perf_counter()
    data = anchor.encode(pixels, quality)
    between = time.perf_counter()
    decoded = anchor.decode(data)
    end = time.perf_counter()
    times = (1e3 * (between - start), 1e3 * (end - between))
    return Trial(anchor.name, anchor.version, quality, pixels, decoded, len(data), *times)


def reached(anchor: Anchor, pixels: NDArray[np.uint8], target: Target) -> int | None:
    """The whole quality that ``attar compress`` would find for a target; None for a codec that has but one.

    Raises :class:`~attar.errors.TargetError` where it is out of reach.
    """
    scale = anchor.scale
    tried: dict[bytes, int] = {}

    def attempt(at: int) -> bytes:
        data = anchor.encode(pixels, None if scale is None else at)
        tried[data] = at
        return data

    limits = (0, 0) if scale is None else (int(scale.lowest), int(scale.highest))
    found = reach(target, limits, attempt, scorer(target, pixels, lambda data: [anchor.decode(data)]))
    return None if scale is None else tried[found]
