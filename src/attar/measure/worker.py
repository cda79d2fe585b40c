"""The process that measures: a codec that crashes takes only this process with it, and memory is its own.

It reads one task a line from standard input and answers with one line, both JSON;
:mod:`attar.measure.benchmark` starts it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from attar.codec import images
from attar.errors import AttarError
from attar.measure import metrics
from attar.measure.anchors import Absent, Anchor, Pixels, find
from attar.measure.rows import IDENTICAL, Row

__all__ = ["Task", "conform", "distortions", "measure"]

Value = TypeVar("Value")
ENOUGH_SECONDS = 0.5
"""Runs are repeated until they last this long together."""


MAX_REASON = 300


@dataclass(frozen=True)
class Task:
    """One image through one codec at some qualities: the rows to fill, and how often to time each.

    ``codec``: how it was asked for, which :func:`attar.measure.anchors.find` understands.
    """

    codec: str
    blanks: tuple[Row, ...]
    repeats: int

    @classmethod
    def from_json(cls, line: str) -> Task:
        """The task that :meth:`to_json` wrote."""
        codec, blanks, repeats = json.loads(line)
        return cls(codec, tuple(Row(**blank) for blank in blanks), repeats)

    def to_json(self) -> str:
        """The task on one line."""
        return json.dumps([self.codec, [asdict(row) for row in self.blanks], self.repeats])

    def failed(self, reason: str) -> list[Row]:
        """Its rows when nothing could be measured."""
        return [replace(row, status="failed", error=one_line(reason)) for row in self.blanks]


def one_line(text: str) -> str:
    """``text`` on one line of a bounded length."""
    words = " ".join(text.split())
    return words if len(words) <= MAX_REASON else words[: MAX_REASON - 3] + "..."


def measure(task: Task, anchor: Anchor, pixels: Pixels, *, memory: bool = True) -> list[Row]:
    """The task's rows, filled; a codec that fails gives a failed row and not an exception.

    ``memory``: measure that of this process too, which says something only where it does nothing else.
    """
    rows = []
    for blank in task.blanks:
        try:
            rows.append(replace(blank, **_one(anchor, pixels, blank.quality, task.repeats, memory=memory)))
        except Exception as error:  # whatever a foreign codec raises belongs into its row
            reason = str(error) if isinstance(error, AttarError) else f"{type(error).__name__}: {error}"
            rows.append(replace(blank, status="failed", error=one_line(reason)))
    return rows


def _one(
    anchor: Anchor, pixels: Pixels, quality: float | None, repeats: int, *, memory: bool
) -> dict[str, Any]:
    if memory:
        _reset_peak()
    data, encode_ms, encodes = _timed(lambda: anchor.encode(pixels, quality), repeats)
    decoded, decode_ms, decodes = _timed(lambda: anchor.decode(data), repeats)
    peak = _peak_mib() if memory else None
    height, width, _ = pixels.shape
    return {
        "bytes": len(data),
        "bpp": 8 * len(data) / (height * width),
        **distortions(pixels, decoded),
        "encode_ms": round(encode_ms, 3),
        "decode_ms": round(decode_ms, 3),
        "runs": min(encodes, decodes),
        "peak_mib": peak,
    }


def distortions(image: Pixels, decoded: Pixels) -> dict[str, Any]:
    """Every metric of a decoded image, by column; raises :class:`AttarError` where the size differs."""
    decoded = conform(decoded, image)
    pairs: dict[str, tuple[Any, Any]] = {
        "": (image, decoded),
        "_y": (metrics.luma(image), metrics.luma(decoded)),
    }
    values: dict[str, Any] = {}
    for suffix, (a, b) in pairs.items():
        values["psnr" + suffix] = _ratio(metrics.psnr(a, b))
        values["ssim" + suffix], values["ms_ssim" + suffix] = metrics.similarities(a, b)
    return values | {"psnr_summed": _ratio(metrics.psnr_summed(image, decoded))}


def _ratio(value: float | None) -> Any:
    return IDENTICAL if value is None else value


def conform(decoded: Pixels, image: Pixels) -> Pixels:
    """A gray picture given back as RGB is turned gray again (BT.601), and gray for RGB is repeated."""
    if decoded.shape[:2] != image.shape[:2]:
        raise AttarError(
            f"decoded {decoded.shape[1]} x {decoded.shape[0]} pixels, not {image.shape[1]} x {image.shape[0]}"
        )
    if decoded.shape == image.shape:
        return decoded
    if image.shape[2] == 1 and decoded.shape[2] == 3:
        return np.rint(metrics.luma(decoded) * 255).astype(np.uint8)[..., None]
    if image.shape[2] == 3 and decoded.shape[2] == 1:
        return np.repeat(decoded, 3, axis=2)
    raise AttarError(f"decoded {decoded.shape[2]} channels, not {image.shape[2]}")


def _timed(action: Callable[[], Value], repeats: int) -> tuple[Value, float, int]:
    """Result, milliseconds of the best run, and how many runs that is the best of."""
    times: list[float] = []
    while not times or (len(times) < repeats and sum(times) < ENOUGH_SECONDS):
        start = time.perf_counter()
        result = action()
        times.append(time.perf_counter() - start)
    return result, 1e3 * min(times), len(times)


def _reset_peak() -> None:
    gc.collect()
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)  # or what the metrics freed would count as the codec's
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # not Linux, or not allowed: _peak_mib then gives None


def _peak_mib() -> float | None:
    """Most resident memory since :func:`_reset_peak`, in MiB; None where the system does not tell."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return None
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    kib = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return None if kib is None else round(kib / 1024, 1)


def _warm(anchor: Anchor | Absent, pixels: Pixels, quality: float | None) -> Anchor | Absent:
    """Run once untimed, so that loading a library or a network is in no row."""
    if not isinstance(anchor, Absent):
        with suppress(Exception):  # the measurement that follows reports it
            anchor.decode(anchor.encode(pixels, quality))
    return anchor


def main() -> None:
    """Answer tasks until standard input ends; what libraries print goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        anchors: dict[str, Anchor | Absent] = {}
        for line in sys.stdin:
            task = Task.from_json(line)
            name, path = task.codec, task.blanks[0].image
            try:
                pixels = images.read(path).pixels
                if name not in anchors:
                    anchors[name] = _warm(find(name), pixels, task.blanks[0].quality)
                anchor = anchors[name]
                rows = (
                    task.failed(anchor.reason)
                    if isinstance(anchor, Absent)
                    else measure(task, anchor, pixels)
                )
            except AttarError as error:
                rows = task.failed(str(error))
            answers.write(json.dumps([asdict(row) for row in rows]) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
