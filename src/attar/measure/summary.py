"""What a report says, as plain data: curves, BD-rates, times, worst images, failures, machine, versions.

:func:`summarise` gives one JSON-able document; :mod:`attar.measure.report` writes it and draws it.
"""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import attar
from attar.errors import AttarError
from attar.measure.anchors import Absent
from attar.measure.curves import (
    METHODS,
    METRICS,
    MIN_OVERLAP,
    MIN_POINTS,
    Curve,
    bd,
    mean_curve,
    mean_curves,
    saving,
)
from attar.measure.rows import IDENTICAL, Row

__all__ = ["Measured", "machine", "summarise"]

WORST = 5
LIBRARIES = ("numpy", "pillow", "imagecodecs", "bjontegaard", "matplotlib", "onnxruntime", "constriction")


@dataclass(frozen=True)
class Measured:
    """Everything that goes into a report."""

    rows: Sequence[Row]
    absent: Sequence[Absent] = ()
    published: Sequence[Curve] = ()
    reference: str | None = None
    min_overlap: float = MIN_OVERLAP
    command: str = ""

    @property
    def curves(self) -> list[Curve]:
        """Mean curves of the measured codecs."""
        return mean_curves(self.rows)


def summarise(measured: Measured) -> dict[str, Any]:
    """The report's document. Raises :class:`AttarError` where the reference is not among the curves."""
    curves = measured.curves
    reference = _reference(measured, curves)
    local = next((curve for curve in curves if curve.name == (reference.name if reference else "")), None)
    local = local or next((curve for curve in curves if len(curve.bpp) > 1), None)
    return {
        "attar": attar.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": measured.command,
        "machine": machine(),
        "images": _images(measured.rows),
        "codecs": [
            {
                "name": curve.name,
                "version": curve.source,
                "points": len(curve.bpp),
                "notes": list(curve.notes),
            }
            for curve in curves
        ],
        "absent": [{"name": codec.name, "reason": codec.reason} for codec in measured.absent],
        "failed": [
            {"image": row.image, "codec": row.codec, "quality": row.quality, "error": row.error}
            for row in measured.rows
            if not row.ok
        ],
        "published": [curve.name for curve in measured.published],
        "reference": reference.name if reference else None,
        "min_overlap": measured.min_overlap,
        "bd": [
            delta
            for base in dict.fromkeys(curve.name for curve in (reference, local) if curve is not None)
            for delta in _deltas(base, [*curves, *measured.published], measured.min_overlap)
        ],
        "savings": _savings(reference, curves),
        "curves": [_points(curve) for curve in curves],
        "lossless": _lossless(measured.rows),
        "times": _times(measured.rows, curves),
        "worst_reference": local.name if local else None,
        "worst": _worst(measured.rows, local, measured.min_overlap),
    }


def machine() -> dict[str, Any]:
    """Processor, cores, system, Python and library versions."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _reference(measured: Measured, curves: Sequence[Curve]) -> Curve | None:
    """The curve asked for; else a published VTM, else the first measured codec that has a curve."""
    everything = [*curves, *measured.published]
    if measured.reference is not None:
        found = next((curve for curve in everything if curve.name == measured.reference), None)
        if found is None:
            names = ", ".join(curve.name for curve in everything)
            raise AttarError(f"the reference {measured.reference!r} is not among the curves: {names}")
        return found
    published = (curve for curve in measured.published if curve.name.lower() == "vtm")
    return next(published, None) or next((curve for curve in everything if len(curve.bpp) > 1), None)


def _images(rows: Sequence[Row]) -> list[dict[str, Any]]:
    first = {row.image: row for row in rows if row.width is not None}
    return [
        {"image": row.image, "width": row.width, "height": row.height, "channels": row.channels}
        for row in first.values()
    ]


def _deltas(base: str, curves: Sequence[Curve], least: float) -> list[dict[str, Any]]:
    """Every curve against one, for every metric that both have."""
    reference = next(curve for curve in curves if curve.name == base)
    return [
        {"reference": base, "codec": curve.name, "metric": metric.column, "method": method}
        | vars(bd(reference, curve, metric, method=method, min_overlap=least))
        for curve in curves
        for metric in METRICS.values()
        for method in METHODS
        if curve.name != base and curve.points(metric) and reference.points(metric)
    ]


def _savings(reference: Curve | None, curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """What codecs with too few points for a BD-rate save at their own quality."""
    return [
        {"codec": curve.name, "metric": metric.column, "level": level, "percent": percent}
        for curve in curves
        for metric in METRICS.values()
        if reference is not None and curve.name != reference.name and len(curve.points(metric)) < MIN_POINTS
        for level, percent in saving(reference, curve, metric)
    ]


def _points(curve: Curve) -> dict[str, Any]:
    return {
        "codec": curve.name,
        "quality": list(curve.qualities),
        "bpp": list(curve.bpp),
        **{column: list(values) for column, values in curve.values.items()},
    }


def _lossless(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Mean size of codecs that gave every image back exactly, at their only quality."""
    found = []
    for name, group in _by_codec(rows).items():
        if all(row.psnr == IDENTICAL and row.quality is None for row in group):
            bpp, size = (
                float(np.mean([getattr(row, column) for row in group])) for column in ("bpp", "bytes")
            )
            found.append({"codec": name, "images": len(group), "bpp": bpp, "bytes": size})
    return found


def _times(rows: Sequence[Row], curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Times of each codec at the quality whose mean PSNR is nearest to one level, the same for all."""
    metric = METRICS["psnr"]
    middles = [points[len(points) // 2][1] for curve in curves if (points := curve.points(metric))]
    level = float(np.median(middles)) if middles else None
    found = []
    for name, group in _by_codec(rows).items():
        by_quality: dict[float | None, list[Row]] = defaultdict(list)
        for row in group:
            by_quality[row.quality].append(row)
        means = {quality: _mean_psnr(some) for quality, some in by_quality.items()}
        quality = min(means, key=lambda quality: abs((means[quality] or 1e9) - (level or 0)))
        chosen = by_quality[quality]
        pixels = sum((row.width or 0) * (row.height or 0) for row in chosen) / 1e6
        encode, decode = (sum(getattr(row, key) or 0 for row in chosen) for key in ("encode_ms", "decode_ms"))
        peaks = [row.peak_mib for row in chosen if row.peak_mib is not None]
        found.append(
            {
                "codec": name,
                "quality": quality,
                "psnr": means[quality],
                "bpp": float(np.mean([row.bpp for row in chosen if row.bpp is not None])),
                "encode_ms": encode / len(chosen),
                "decode_ms": decode / len(chosen),
                "encode_mpx_s": 1e3 * pixels / encode if encode else None,
                "decode_mpx_s": 1e3 * pixels / decode if decode else None,
                "peak_mib": max(peaks) if peaks else None,
                "jobs": max(row.jobs or 1 for row in chosen),
            }
        )
    return found


def _mean_psnr(rows: Sequence[Row]) -> float | None:
    values = [row.psnr for row in rows]
    return float(np.mean([v for v in values if isinstance(v, float)])) if IDENTICAL not in values else None


def _worst(rows: Sequence[Row], reference: Curve | None, least: float) -> list[dict[str, Any]]:
    """For each codec, the images on which it costs most bits against the reference, at equal PSNR."""
    if reference is None:
        return []
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.ok:
            groups[row.codec, row.image].append(row)
    single = {key: mean_curve(key[0], group) for key, group in groups.items()}
    found = []
    for name in dict.fromkeys(codec for codec, _ in single if codec != reference.name):
        costs = [
            (cost, image)
            for (codec, image), curve in single.items()
            if codec == name and (base := single.get((reference.name, image))) is not None
            if (cost := _cost(base, curve, least)) is not None
        ]
        found += [
            {"codec": name, "image": image, "rate": cost} for cost, image in sorted(costs)[: -WORST - 1 : -1]
        ]
    return found


def _cost(reference: Curve, curve: Curve, least: float) -> float | None:
    """Percent more bits on one image: the BD-rate, or for too few points their mean at equal PSNR."""
    metric = METRICS["psnr"]
    if (rate := bd(reference, curve, metric, min_overlap=least).rate) is not None:
        return rate
    savings = (
        [percent for _, percent in saving(reference, curve, metric)] if len(curve.bpp) < MIN_POINTS else []
    )
    return float(np.mean(savings)) if savings else None


def _by_codec(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.ok:
            groups[row.codec].append(row)
    return groups
