"""Rate and distortion of a network of variable rate, over its range, beside classical codecs on the same images.

Rates are estimates: what the prior says that the rounded latents cost. Real files are measured by
:mod:`attar.train.validate` and :mod:`attar.measure`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from attar.codec.files import atomic, write_bytes
from attar.errors import AttarError
from attar.measure import anchors, metrics
from attar.train import datasets

QUALITIES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Where a network is measured, of its range 0..1."""
RIVALS = {"jpeg": (10, 25, 45, 65, 80, 90, 95), "avif": (20, 35, 50, 65, 80, 90)}
MOST_IMAGES = 64  # whose rival files are made at the beginning of a run

Row = dict[str, float]
Points = list[tuple[float, float]]
"""Bits per pixel and PSNR in dB, by rising rate."""


def measure(at: Callable[[float], Row]) -> Row:
    """The mean of the metrics over :data:`QUALITIES`, and the points ``rd_bpp_0``, ``rd_psnr_0``, ...

    Args:
        at: gives the metrics (``loss``, ``rate``, ``psnr`` and others) of the whole split at one quality.
    """
    rows = [at(quality) for quality in QUALITIES]
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    for place, row in enumerate(rows):
        mean[f"rd_bpp_{place}"], mean[f"rd_psnr_{place}"] = row["rate"], row["psnr"]
    return mean


def points(row: Mapping[str, float]) -> Points:
    """The points that :func:`measure` left in a row of the history; none in other rows."""
    places = range(sum(name.startswith("rd_bpp_") for name in row))
    return [(row[f"rd_bpp_{place}"], row[f"rd_psnr_{place}"]) for place in places]


def rivals(split: datasets.Split, path: Path) -> dict[str, Points]:
    """Points of real JPEG and AVIF files of a split's first images, means over images; kept in ``path``.

    A codec that this machine lacks is left out. Raises AttarError when ``path`` cannot be written.
    """
    try:
        return {
            name: [(bpp, psnr) for bpp, psnr in curve] for name, curve in json.loads(path.read_text()).items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        pass  # not there yet, or of an interrupted run
    images = split.take(np.arange(min(MOST_IMAGES, len(split))))
    pixels = images.shape[1] * images.shape[2]
    found: dict[str, Points] = {}
    for name, qualities in RIVALS.items():
        codec = anchors.find(name)
        if isinstance(codec, anchors.Absent):
            continue
        found[name] = []
        for quality in qualities:
            files = [codec.encode(image, quality) for image in images]
            decoded = np.stack([codec.decode(data) for data in files])
            psnr = metrics.psnr(images, decoded)
            bpp = 8 * float(np.mean([len(data) for data in files])) / pixels
            found[name].append((bpp, float(np.mean(np.minimum(psnr, 100.0)))))
    write_bytes(path, json.dumps(found).encode())
    return found


def draw(history: Sequence[Mapping[str, float]], curves: Mapping[str, Points], path: Path) -> None:
    """Draw the last, the best and some earlier curves of a run beside the rivals', as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), "--", label=f"{name} (files)")
    measured = [row for row in history if points(row)]
    shown = sorted({len(measured) * k // 4 - 1 for k in (1, 2, 3, 4)} - {-1})
    for place in shown:
        row, last = measured[place], place == len(measured) - 1
        label = f"step {int(row['step'])} (estimated)"
        axes.plot(*zip(*points(row), strict=True), "o-", label=label, alpha=1.0 if last else 0.35)
    axes.set(xlabel="bits per pixel", ylabel="PSNR in dB, RGB", title="validation images")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic(path) as temporary:
        try:
            figure.savefig(temporary, format="png", dpi=100)
        except OSError as error:
            raise AttarError(f"{path}: cannot be written: {error.strerror or error}") from error
