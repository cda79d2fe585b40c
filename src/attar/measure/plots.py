"""Rate-distortion plots: a figure for each metric, as SVG or PNG, in colours for colour-blind eyes too.

Rates are on a logarithmic axis, so that equal horizontal distances are equal savings.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from attar.errors import MissingExtraError
from attar.measure.curves import Curve, Metric

__all__ = ["rd_plot"]

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, less its yellow, which vanishes on white."""
MARKERS = "osD^vP*X<>"
DASHES: tuple[Any, ...] = ((0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
TICKS = (1.0, 2.0, 5.0)


def rd_plot(
    curves: Sequence[Curve], published: Sequence[Curve], metric: Metric, *, kind: str
) -> bytes | None:
    """The figure as ``"svg"`` or ``"png"`` bytes; None where no curve has the metric.

    Measured curves are solid, published ones dashed; the legend lists them from the best down, by the level
    they reach at a rate that most of them cover. Raises :class:`MissingExtraError` without matplotlib.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    except ImportError as error:
        raise MissingExtraError("matplotlib", "measure") from error
    styled = [
        (curve, points, style)
        for curve, style in _styles(curves, published)
        if (points := curve.points(metric))
    ]
    if not styled:
        return None
    figure = Figure(figsize=(8.6, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve, points, style in _ranked(styled):
        axes.plot(*zip(*points, strict=True), label=_plain(curve.name), **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("Rate (bits per pixel, logarithmic)")
    axes.set_ylabel(metric.axis)
    axes.grid(True, color="#e3e3e3", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=9, handlelength=3)
    out = io.BytesIO()
    details: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": 160}
    with rc_context({"svg.hashsalt": "attar"}):  # the same curves give the same file
        figure.savefig(out, format=kind, **details)
    return out.getvalue()


def _styles(curves: Sequence[Curve], published: Sequence[Curve]) -> list[tuple[Curve, dict[str, Any]]]:
    """A colour for each in turn; markers for measured curves (hollow in the second round), else dashes."""
    styles: list[tuple[Curve, dict[str, Any]]] = []
    for number, curve in enumerate([*curves, *published]):
        turn, colour = divmod(number, len(OKABE_ITO))
        style: dict[str, Any] = {"color": OKABE_ITO[colour]}
        if number < len(curves):
            style |= {"linewidth": 1.8, "marker": MARKERS[number % len(MARKERS)], "markersize": 5}
            style |= {"markerfacecolor": "white"} if turn % 2 else {}
        else:
            style |= {"linewidth": 1.3, "linestyle": DASHES[turn % len(DASHES)]}
        styles.append((curve, style))
    return styles


def _ranked(styled: list[tuple[Curve, list[tuple[float, float]], dict[str, Any]]]) -> list[Any]:
    """By the level at the median rate of all points; curves that do not reach it come last, by their best."""
    import numpy as np

    rates = np.concatenate([np.log([bpp for bpp, _ in points]) for _, points, _ in styled])
    middle = float(np.median(rates))

    def rank(entry: tuple[Curve, list[tuple[float, float]], dict[str, Any]]) -> tuple[bool, float]:
        logs, levels = np.log([bpp for bpp, _ in entry[1]]), [level for _, level in entry[1]]
        covered = logs[0] <= middle <= logs[-1]
        return covered, float(np.interp(middle, logs, levels))

    return sorted(styled, key=rank, reverse=True)


def _plain(name: str) -> str:
    """A name that matplotlib takes as it is: no formulas, no label that starts with an underscore."""
    text = name if len(name) <= 40 else name[:39] + "…"
    return text.replace("$", r"\$").lstrip("_") or "unnamed"
