"""Rate-distortion curves, drawn as the field draws them, and Bjontegaard deltas between two of them.

The mean curve of a codec has one point for each quality: the mean bpp and the mean metric over the images
(CompressAI, and most papers). SSIM and MS-SSIM are averaged first and put on a decibel axis,
``-10 log10(1 - value)``, afterwards. A quality at which any image failed has no point: the mean would be over
other images.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attar import plainjson
from attar.errors import AttarError, MissingExtraError
from attar.measure.rows import Row

__all__ = [
    "METHODS",
    "METRICS",
    "MIN_OVERLAP",
    "MIN_POINTS",
    "Curve",
    "Delta",
    "Metric",
    "bd",
    "mean_curve",
    "mean_curves",
    "read_published",
    "saving",
]


@dataclass(frozen=True)
class Metric:
    """A column of :class:`Row` as an axis. ``similarity``: in [0, 1], drawn as ``-10 log10(1 - value)``."""

    column: str
    title: str
    similarity: bool = False

    @property
    def axis(self) -> str:
        """The label of its axis, with the unit."""
        return f"{self.title}, -10 log10(1 - value) (dB)" if self.similarity else f"{self.title} (dB)"

    def decibels(self, value: float) -> float | None:
        """The value on the axis; None for a similarity of 1."""
        if not self.similarity:
            return value
        return -10 * math.log10(1 - value) if value < 1 else None


METRICS = {
    metric.column: metric
    for metric in (
        Metric("psnr", "PSNR"),
        Metric("ms_ssim", "MS-SSIM", similarity=True),
        Metric("ssim", "SSIM", similarity=True),
        Metric("psnr_y", "PSNR of luma"),
        Metric("ms_ssim_y", "MS-SSIM of luma", similarity=True),
        Metric("ssim_y", "SSIM of luma", similarity=True),
    )
}
PUBLISHED = {"psnr-rgb": "psnr", "psnr": "psnr", "ms-ssim-rgb": "ms_ssim", "ms-ssim": "ms_ssim"}
"""Keys of CompressAI's result files."""
PUBLISHED_DB = "ms-ssim-db-rgb"
METHODS = ("pchip", "akima")
MIN_POINTS = 4
MIN_OVERLAP = 0.5
"""Least part of the shorter curve's quality range that both curves must cover for a BD-rate."""


@dataclass(frozen=True)
class Curve:
    """A codec's mean curve: ``bpp`` of each point, and under each metric's column its values (or None).

    Similarities are kept as they are; :meth:`points` puts them on the decibel axis.
    """

    name: str
    bpp: tuple[float, ...]
    values: Mapping[str, tuple[float | None, ...]]
    qualities: tuple[float | None, ...] = ()
    source: str = "measured here"
    notes: tuple[str, ...] = ()

    def points(self, metric: Metric) -> list[tuple[float, float]]:
        """``(bpp, dB)`` of the points that have this metric, by rising bpp."""
        values = self.values.get(metric.column, ())
        pairs = [
            (bpp, shown)
            for bpp, value in zip(self.bpp, values, strict=False)
            if value is not None and (shown := metric.decibels(value)) is not None
        ]
        return sorted(pairs)

    def to_published(self) -> dict[str, Any]:
        """The curve in CompressAI's layout, so that others can read it."""
        keys = {"psnr": "psnr-rgb", "ms_ssim": "ms-ssim-rgb"}
        full = {
            keys.get(column, column): list(values)
            for column, values in self.values.items()
            if None not in values
        }
        return {"name": self.name, "description": self.source, "results": {"bpp": list(self.bpp), **full}}


@dataclass(frozen=True)
class Delta:
    """``rate``: mean bpp difference in percent at equal quality (negative: the tested codec is smaller).

    ``gain``: mean quality difference in dB at equal rate. ``overlap``: part of the shorter curve's quality
    range that both cover, 0 to 1; ``span``: that range in dB. ``refused`` says why there are no numbers.
    """

    rate: float | None
    gain: float | None
    overlap: float
    span: tuple[float, float] | None
    refused: str = ""


def mean_curves(rows: Iterable[Row]) -> list[Curve]:
    """One mean curve for each codec, in the order of the rows; without a whole point it is empty."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.codec:
            groups[row.codec].append(row)
    return [mean_curve(name, group) for name, group in groups.items()]


def mean_curve(name: str, rows: Sequence[Row]) -> Curve:
    """The mean over images of the rows of one codec."""
    by_quality: dict[float | None, list[Row]] = defaultdict(list)
    for row in rows:
        by_quality[row.quality].append(row)
    images = len({row.image for row in rows})
    whole, partial = [], defaultdict(list)
    for quality, group in by_quality.items():
        good = sum(row.ok for row in group)
        if good == images:
            whole.append((float(np.mean([row.bpp for row in group if row.bpp is not None])), quality, group))
        else:
            partial[good].append("its only quality" if quality is None else f"quality {quality:g}")
    notes = [
        f"{', '.join(which)}: left out, measured on {good} of {images} images"
        for good, which in partial.items()
    ]
    gray = all(row.channels == 1 for row in rows)  # luma is then the image itself
    columns = [column for column in METRICS if not (gray and column.endswith("_y"))]
    whole.sort(key=lambda point: point[0])
    return Curve(
        name,
        tuple(bpp for bpp, _, _ in whole),
        {column: tuple(_mean(group, column) for _, _, group in whole) for column in columns},
        tuple(quality for _, quality, _ in whole),
        source=rows[0].version if rows else "",
        notes=tuple(notes),
    )


def bd(
    anchor: Curve, test: Curve, metric: Metric, *, method: str = "pchip", min_overlap: float = MIN_OVERLAP
) -> Delta:
    """Bjontegaard delta of ``test`` against ``anchor`` (VCEG-M33, with PCHIP or Akima interpolation).

    Points that cost more bits without more quality are left out first. Refused, with the reason, where a
    curve has fewer than ``MIN_POINTS`` points left, or the curves share less than ``min_overlap`` of the
    shorter one's quality range. Raises :class:`MissingExtraError` without ``attar[measure]``.
    """
    a, b = _rising(anchor.points(metric)), _rising(test.points(metric))
    for name, points in ((anchor.name, a), (test.name, b)):
        if len(points) < MIN_POINTS:
            count = f"{len(points)} point{'' if len(points) == 1 else 's'}"
            return Delta(None, None, 0.0, None, f"{name} has {count}; a BD-rate needs {MIN_POINTS}")
    low, high = max(a[0][1], b[0][1]), min(a[-1][1], b[-1][1])
    overlap = max(0.0, high - low) / min(a[-1][1] - a[0][1], b[-1][1] - b[0][1])
    if overlap < min_overlap or high <= low:
        ranges = " and ".join(f"{points[0][1]:.1f} to {points[-1][1]:.1f} dB" for points in (a, b))
        reason = f"the curves share {overlap:.0%} of their quality ({ranges}); {min_overlap:.0%} are needed"
        return Delta(None, None, overlap, None, reason)
    try:
        import bjontegaard
    except ImportError as error:
        raise MissingExtraError("bjontegaard", "measure") from error
    rates_a, levels_a = zip(*a, strict=True)
    rates_b, levels_b = zip(*b, strict=True)
    arguments = (rates_a, levels_a, rates_b, levels_b, method)
    rate = float(bjontegaard.bd_rate(*arguments, require_matching_points=False, min_overlap=0))
    shared = min(a[-1][0], b[-1][0]) > max(a[0][0], b[0][0])
    gain = (
        float(bjontegaard.bd_psnr(*arguments, require_matching_points=False, min_overlap=0))
        if shared
        else None
    )
    return Delta(rate, gain, overlap, (low, high))


def saving(anchor: Curve, test: Curve, metric: Metric) -> list[tuple[float, float]]:
    """``(dB, percent)`` of each point of ``test``: its bpp against the anchor's at the same quality.

    What can be said of a codec with too few points for a BD-rate. The anchor's log rate is interpolated
    linearly; points outside its range are left out.
    """
    curve = _rising(anchor.points(metric))
    if len(curve) < 2:
        return []
    rates, levels = (np.array(column) for column in zip(*curve, strict=True))
    return [
        (level, 100 * (bpp / math.exp(float(np.interp(level, levels, np.log(rates)))) - 1))
        for bpp, level in test.points(metric)
        if levels[0] <= level <= levels[-1]
    ]


def read_published(paths: Iterable[str | Path]) -> list[Curve]:
    """Curves from files of CompressAI's JSON layout, or from all ``*.json`` of a folder.

    A file is ``{"name": ..., "results": {"bpp": [...], "psnr-rgb": [...], "ms-ssim-rgb": [...]}}``; other
    keys are passed over. Curves of one name are told apart by their file. Raises :class:`AttarError`, naming
    the file.
    """
    files = [
        file
        for path in map(Path, paths)
        for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])
    ]
    curves = [_read_one(file) for file in files]
    names = [curve.name for curve in curves]
    return [
        Curve(
            curve.name if names.count(curve.name) == 1 else file.stem,
            curve.bpp,
            curve.values,
            source=curve.source,
        )
        for file, curve in zip(files, curves, strict=True)
    ]


def _read_one(file: Path) -> Curve:
    try:
        document, faults = plainjson.decode(plainjson.read(file))
    except plainjson.NotPlainError as error:
        raise AttarError(f"{file}: {error}") from error
    results = document.get("results") if isinstance(document, dict) else None
    if faults or not isinstance(results, dict):
        reason = (
            faults.lines[0]
            if faults
            else "expected an object with 'name' and 'results', as in CompressAI's results"
        )
        raise AttarError(f"{file}: {reason}")
    bpp = _numbers(results, "bpp", file)
    if not bpp or min(bpp) <= 0:
        raise AttarError(f"{file}: results.bpp: expected rates above 0")
    values: dict[str, tuple[float | None, ...]] = {}
    for key, column in PUBLISHED.items():
        if key in results:
            values.setdefault(column, tuple(_numbers(results, key, file, len(bpp))))
    if PUBLISHED_DB in results:
        levels = _numbers(results, PUBLISHED_DB, file, len(bpp))
        values.setdefault("ms_ssim", tuple(1 - 10 ** (-level / 10) for level in levels))
    if any(value is not None and not 0 <= value <= 1 for value in values.get("ms_ssim", ())):
        raise AttarError(f"{file}: an MS-SSIM lies outside [0, 1]")
    if not values:
        raise AttarError(f"{file}: results holds none of {', '.join([*PUBLISHED, PUBLISHED_DB])}")
    name = document.get("name")
    name = name.strip() if isinstance(name, str) and name.strip() else file.stem
    return Curve(name, tuple(bpp), values, source=f"published: {file.name}")


def _numbers(results: Mapping[str, Any], key: str, file: Path, count: int | None = None) -> list[float]:
    values = results.get(key)
    if not isinstance(values, list) or not all(type(value) in {int, float} for value in values):
        raise AttarError(f"{file}: results.{key}: expected a list of numbers, found {plainjson.show(values)}")
    if count is not None and len(values) != count:
        raise AttarError(f"{file}: results.{key} has {len(values)} values, but results.bpp has {count}")
    return [float(value) for value in values]


def _mean(rows: Sequence[Row], column: str) -> float | None:
    """The mean over rows; None where one has no number (identical images, MS-SSIM of a tiny one)."""
    values = [getattr(row, column) for row in rows]
    return float(np.mean(values)) if all(isinstance(value, float) for value in values) else None


def _rising(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points, by rate, that are better than every cheaper one."""
    kept: list[tuple[float, float]] = []
    for bpp, level in points:
        if not kept or (level > kept[-1][1] and bpp > kept[-1][0]):
            kept.append((bpp, level))
    return kept
