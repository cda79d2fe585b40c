"""The pictures of a training run: ``curves.png``, ``regenerated.png`` and ``model.svg``.

All are written whole or not at all and are the same bytes for the same input. matplotlib is imported only
where it draws, and its global state is left alone.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attar.codec.files import write_bytes
from attar.errors import AttarError, TrainingError
from attar.train import diagram

__all__ = ["curves", "drawing", "regenerated", "strip"]

MOST_IMAGES = 16
TRAINING, VALIDATION, INK, QUIET = "#2563eb", "#ea580c", "#1e293b", "#64748b"
PANELS = (  # title, column, how the best epoch's value is written
    ("Loss", "loss", "{:.4g}"),
    ("SSIM", "ssim", "{:.4f}"),
    ("PSNR (dB)", "psnr", "{:.2f} dB"),
    ("Bytes per image", "bytes", "{:,.1f} bytes"),
)
MOST_MARKED = 40  # epochs; beyond, a marker for each hides the line

TILE, LARGEST_TILE, BAND = 112, 320, 1000  # pixels: a small image, the largest, the width of a band of images
GAP, MARGIN, LINE, POINTS, DPI = 10, 16, 18, 9.5, 100


def curves(history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Draw loss, SSIM, PSNR and bytes per image against the epoch, training and validation, to a PNG.

    Args:
        history: a row for each epoch, with the columns of ``history.csv``: ``epoch``, ``loss``, ``ssim``,
            ``psnr`` (dB), ``bytes`` and the same with ``val_``. Any may be missing or empty; numbers may be
            text. The epoch with the lowest ``val_loss`` is marked.
        path: the PNG to write.

    Raises:
        TrainingError: if a value is no number, or the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    epochs = _column(history, "epoch")
    epochs = np.where(np.isfinite(epochs), epochs, np.arange(1, len(epochs) + 1))
    judged = _column(history, "val_loss")
    best = int(np.nanargmin(judged)) if np.isfinite(judged).any() else None
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)  # inches
    figure = Figure(figsize=(10, 6.4), dpi=120, layout=layout, facecolor="white")
    for axes, (title, key, form) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        validation = _column(history, f"val_{key}")
        _panel(axes, epochs, {"training": _column(history, key), "validation": validation})
        axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
        if best is not None:
            _mark(axes, epochs[best], validation[best], form)
    labels: dict[str, Any] = {}
    for axes in figure.axes:
        labels |= {str(line.get_label()): line for line in axes.get_legend_handles_labels()[0]}
    if labels:
        figure.legend(labels.values(), labels, loc="outside lower center", ncols=3, frameon=False)
    _write(path, _png(figure))


def _column(history: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """One column of the history, (rows,) float64, NaN where there is nothing finite."""
    values = np.full(len(history), np.nan)
    for number, row in enumerate(history):
        value = row.get(key)
        if value is None or value == "":
            continue
        try:
            values[number] = float(value)
        except (TypeError, ValueError):
            raise TrainingError(f"history, row {number + 1}: {key} is {value!r}, expected a number") from None
    return np.where(np.isfinite(values), values, np.nan)


def _panel(axes: Any, epochs: np.ndarray, series: Mapping[str, np.ndarray]) -> None:
    from matplotlib.ticker import MaxNLocator

    drawn = False
    for (label, values), colour in zip(series.items(), (TRAINING, VALIDATION), strict=True):
        there = np.isfinite(values)
        if there.any():
            style = {"marker": "o" if there.sum() <= MOST_MARKED else "", "markersize": 4, "linewidth": 1.8}
            axes.plot(epochs[there], values[there], color=colour, label=label, **style)
            drawn = True
    axes.grid(visible=True, color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if not drawn:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=QUIET)
        axes.set(xticks=[], yticks=[])
        return
    axes.set_xlabel("epoch", color=QUIET)
    axes.ticklabel_format(axis="y", useOffset=False)
    if len(epochs) == 1:
        axes.set(xticks=epochs, xlim=(epochs[0] - 1, epochs[0] + 1), ymargin=0.4)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def _mark(axes: Any, epoch: float, value: float, form: str) -> None:
    """Mark the best epoch, and write the panel's validation value there."""
    if not np.isfinite(value):
        return
    axes.axvline(epoch, color=QUIET, linestyle=":", linewidth=1.2, zorder=1)
    star = {"marker": "*", "markersize": 13, "markeredgecolor": "white", "linestyle": ""}
    axes.plot([epoch], [value], color=VALIDATION, label="best epoch", zorder=5, **star)
    axes.set_title(f"{form.format(value)} at epoch {epoch:g}", loc="right", fontsize=10, color=QUIET)


def regenerated(
    originals: np.ndarray, regenerated: np.ndarray, captions: Sequence[str], path: str | os.PathLike[str]
) -> None:
    """Show images, what the network made of them, the absolute difference and a caption for each, as a PNG.

    Small images are enlarged without interpolation, large ones reduced. The difference is multiplied by the
    power of two that makes it visible, which is written beside it.

    Args:
        originals: 1 to 16 images, uint8 (N, H, W, C), gray or RGB; of more channels the first three.
        regenerated: as ``originals``.
        captions: N texts; a line is broken at its commas, else between words.
        path: the PNG to write.

    Raises:
        TrainingError: if the arrays do not fit each other, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    rows, factor = _rows(originals, regenerated)
    if len(captions) != len(originals):
        raise TrainingError(f"{len(captions)} captions for {len(originals)} images, expected one for each")
    labels = ["input", "output", f"difference\n\N{MULTIPLICATION SIGN} {factor}"]
    canvas, texts = _composed(_cells(rows), labels, captions)
    tall, wide, _ = canvas.shape
    figure = Figure(figsize=((wide + 0.5) / DPI, (tall + 0.5) / DPI), dpi=DPI, facecolor="white")
    figure.figimage(canvas, origin="upper")
    for x, y, text, ha, va in texts:
        style = {"color": INK, "fontproperties": _font(), "parse_math": False}
        figure.text(x / wide, 1 - y / tall, text, ha=ha, va=va, **style)
    _write(path, _png(figure))


def _cells(rows: np.ndarray) -> np.ndarray:
    """Put white around tiny images (3, N, H, W, 3), so that text fits below and beside."""
    tall, wide = max(2 * LINE - rows.shape[2], 0), max(64 - rows.shape[3], 0)
    around = [(0, 0), (0, 0), (tall // 2, tall - tall // 2), (wide // 2, wide - wide // 2), (0, 0)]
    return np.pad(rows, around, constant_values=255)


def _composed(
    cells: np.ndarray, labels: Sequence[str], captions: Sequence[str]
) -> tuple[np.ndarray, list[tuple[float, float, str, str, str]]]:
    """Lay images (3, N, H, W, 3) out in bands: the page, and its texts (x, y, text, alignments)."""
    measure = _text_measure()
    _, count, height, width, _ = cells.shape
    across = _columns(count, width)
    lines = [_fold(caption, width, measure) for caption in captions]
    left = MARGIN + round(max(measure(line) for label in labels for line in label.split("\n"))) + 14
    below = 8 + LINE * max(map(len, lines)) + 2 * GAP
    band = 3 * (height + GAP) - GAP + below
    tall, wide = -(-count // across) * band + 2 * (MARGIN - GAP), left + across * (width + GAP) - GAP + MARGIN
    page, texts = np.full((tall, wide, 3), 255, np.uint8), []
    for number in range(count):
        top, x = MARGIN + number // across * band, left + number % across * (width + GAP)
        for row, label in enumerate(labels):
            y = top + row * (height + GAP)
            page[y : y + height, x : x + width] = cells[row, number]
            if x == left:
                texts.append((left - 14.0, y + height / 2, label, "right", "center"))
        for line, text in enumerate(lines[number]):
            texts.append((x + width / 2, top + band - below + 8.0 + line * LINE, text, "center", "top"))
    return page, texts


def strip(originals: np.ndarray, regenerated: np.ndarray) -> np.ndarray:
    """Compose originals, regenerated and differences in three rows without text: uint8 (H', W', 3).

    Takes what :func:`regenerated` takes, and raises the same.
    """
    rows, _ = _rows(originals, regenerated)
    _, count, height, width, _ = rows.shape
    canvas = np.full((3, height + GAP, count, width + GAP, 3), 255, np.uint8)
    canvas[:, :height, :, :width] = rows.transpose(0, 2, 1, 3, 4)
    return canvas.reshape(3 * (height + GAP), count * (width + GAP), 3)[:-GAP, :-GAP]


def _rows(originals: np.ndarray, regenerated: np.ndarray) -> tuple[np.ndarray, int]:
    """Originals, regenerated and difference as they are shown, uint8 (3, N, H', W', 3), and its factor."""
    for what, images in (("originals", originals), ("regenerated", regenerated)):
        if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
            raise TrainingError(f"{what}: {images.dtype} {images.shape}, expected uint8 images (N, H, W, C)")
    if originals.shape != regenerated.shape or len(originals) > MOST_IMAGES:
        raise TrainingError(
            f"originals {originals.shape} and regenerated {regenerated.shape}: expected the same shape, "
            f"and at most {MOST_IMAGES} images"
        )
    pair = np.stack([_as_rgb(originals), _as_rgb(regenerated)]).astype(np.int16)
    difference = np.abs(pair[0] - pair[1])
    # A few stray pixels may saturate, so that the rest is seen.
    peak = np.percentile(difference, 99.5) or difference.max()
    factor = 1 << int(np.log2(255 / peak)) if peak else 1
    rows = np.concatenate([pair, np.minimum(difference * factor, 255)[None]])
    return _sized(rows.astype(np.uint8)), factor


def _as_rgb(images: np.ndarray) -> np.ndarray:
    return images[..., :3] if images.shape[-1] >= 3 else np.repeat(images[..., :1], 3, axis=-1)


def _sized(rows: np.ndarray) -> np.ndarray:
    """Enlarge small images by repeating pixels, reduce large ones by averaging: (..., H, W, 3) uint8."""
    *_, height, width, _ = rows.shape
    side = max(height, width)
    if side <= LARGEST_TILE:
        times = max(1, round(TILE / side))
        return rows.repeat(times, axis=-3).repeat(times, axis=-2)
    step = -(-side // LARGEST_TILE)
    whole = [(0, 0)] * (rows.ndim - 3) + [(0, -height % step), (0, -width % step), (0, 0)]
    rows = np.pad(rows, whole, mode="edge")
    *count, height, width, _ = rows.shape
    blocks = rows.reshape(*count, height // step, step, width // step, step, 3)
    return np.asarray(np.rint(blocks.mean(axis=(-4, -2))), np.uint8)


def _columns(count: int, width: int) -> int:
    """Images side by side in one band, as many in each band as can be."""
    most = min(max(BAND // (width + GAP), 1), 8)
    return -(-count // -(-count // most))


def _fold(caption: str, width: int, measure: Any) -> list[str]:
    """Break a caption into lines of at most ``width`` pixels at commas, else between words, else anywhere."""
    caption = " ".join(caption.split())
    if measure(caption) <= width:
        return [caption]
    lines: list[str] = []
    for part in caption.split(", "):
        line = ""
        for word in part.split():
            if line and measure(f"{line} {word}") <= width:
                line = f"{line} {word}"
                continue
            lines.append(line)
            line = ""
            for letter in word:
                if line and measure(line + letter) > width:
                    lines.append(line)
                    line = ""
                line += letter
        lines.append(line)
    return [line for line in lines if line]


def _font() -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(family="DejaVu Sans", size=POINTS)


def _text_measure() -> Any:
    """A function from a text to its width in pixels."""
    from matplotlib.backends.backend_agg import RendererAgg

    renderer, font = RendererAgg(1, 1, DPI), _font()
    return lambda text: renderer.get_text_width_height_descent(text, font, ismath=False)[0]


def drawing(network: Any, path: str | os.PathLike[str], discriminator: Any = None) -> None:
    """Draw a network's architecture with its shapes and numbers of weights, as an SVG.

    Args:
        network: what :func:`attar.train.network.build` gives.
        path: the SVG to write.
        discriminator: what :func:`attar.train.adversarial.build` gives, where there is one.

    Raises:
        TrainingError: if the file cannot be written.
    """
    _write(path, diagram.svg(network, discriminator))


def _png(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def _write(path: str | os.PathLike[str], data: bytes) -> None:
    try:
        write_bytes(path, data)
    except AttarError as error:
        raise TrainingError(str(error)) from error
