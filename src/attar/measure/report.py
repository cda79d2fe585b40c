"""Write a benchmark's report into a folder.

::

    report.html     everything on one page that needs no other file and no network
    report.json     the same as data
    curves.csv      the mean curves; bd.csv: the BD-rates; times.csv: times and memory
    curves/*.json   each measured curve in CompressAI's layout, for others' plots
    rd-*.svg, .png  a plot for each metric
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attar.codec.files import write_bytes
from attar.errors import AttarError
from attar.measure import gallery, page, plots
from attar.measure.anchors import Anchor
from attar.measure.curves import METRICS, Curve
from attar.measure.summary import Measured, summarise

__all__ = ["Measured", "write"]

BD_COLUMNS = ("reference", "codec", "metric", "method", "rate", "gain", "overlap", "low", "high", "refused")


def write(
    measured: Measured,
    folder: str | os.PathLike[str],
    *,
    anchors: Sequence[Anchor] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Write the report's files and return its document.

    ``anchors``: the codecs to make pictures at equal bytes with; none, no pictures. Raises
    :class:`AttarError` where nothing was measured, the reference is unknown or the folder cannot be written,
    and :class:`attar.errors.MissingExtraError` without ``attar[measure]``.
    """
    if not any(row.ok for row in measured.rows):
        failed = [row.error for row in measured.rows]
        reason = f"; the first failure: {failed[0]}" if failed else ""
        raise AttarError(f"nothing was measured, so there is nothing to report{reason}")
    folder = Path(folder)
    summary = summarise(measured)
    curves = measured.curves
    drawn = {}
    for column, metric in METRICS.items():
        if (svg := plots.rd_plot(curves, measured.published, metric, kind="svg")) is None:
            continue
        drawn[column] = svg
        png = plots.rd_plot(curves, measured.published, metric, kind="png") or b""
        _write(folder / f"rd-{column.replace('_', '-')}.svg", svg)
        _write(folder / f"rd-{column.replace('_', '-')}.png", png)
    sheets = gallery.gallery(measured.rows, anchors, progress=progress)
    _write(folder / "curves.csv", _curves_csv(curves))
    _write(folder / "bd.csv", _csv(BD_COLUMNS, [_bd_row(delta) for delta in summary["bd"]]))
    if summary["times"]:
        _write(folder / "times.csv", _csv(tuple(summary["times"][0]), summary["times"]))
    for curve in curves:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", curve.name)[:80].strip("-.") or "codec"
        _write(folder / "curves" / f"{name}.json", _json(curve.to_published()))
    _write(folder / "report.json", _json(summary))
    _write(folder / "report.html", page.render(summary, drawn, sheets).encode(errors="replace"))
    return summary


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AttarError(f"{path.parent} cannot be made: {error.strerror}") from error
    write_bytes(path, data)


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode(errors="replace")


def _bd_row(delta: Mapping[str, Any]) -> dict[str, Any]:
    low, high = delta["span"] or (None, None)
    return {column: delta[column] for column in BD_COLUMNS if column in delta} | {"low": low, "high": high}


def _curves_csv(curves: Sequence[Curve]) -> bytes:
    columns = ("codec", "quality", "bpp", *METRICS)
    rows = [
        {"codec": curve.name, "quality": curve.qualities[place], "bpp": bpp}
        | {column: values[place] for column, values in curve.values.items()}
        for curve in curves
        for place, bpp in enumerate(curve.bpp)
    ]
    return _csv(columns, rows)
