"""Crops of every codec at equal bytes, side by side: what the numbers look like.

For each image a size is chosen: that of a codec with one fixed rate, else one that all codecs reach. Every
other codec's quality is searched for the largest file that does not exceed that size. The crop
is the most detailed window of the image, pixel for pixel.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from attar.codec import images
from attar.measure.anchors import Anchor, Pixels
from attar.measure.rows import IDENTICAL, Row
from attar.measure.worker import conform, distortions

__all__ = ["MOST_SHEETS", "Crop", "Sheet", "gallery"]

HEIGHT, WIDTH = 128, 192
MOST_SHEETS = 24
ROOM = 1.5
"""Common size over the smallest that all codecs reach."""
TOLERANCE = 0.02


@dataclass(frozen=True)
class Crop:
    """One codec on one image: a window of its picture (a WebP or PNG file), and the whole image's numbers."""

    codec: str
    data: bytes
    bytes: int
    psnr: float | str | None
    ssim: float | None


@dataclass(frozen=True)
class Sheet:
    """One image: the original's window, and the codecs', at ``target`` bytes."""

    image: str
    target: int
    original: bytes
    crops: tuple[Crop, ...]


def gallery(
    rows: Sequence[Row],
    anchors: Sequence[Anchor],
    *,
    most: int = MOST_SHEETS,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Sheet]:
    """Sheets of the first ``most`` images that at least two lossy codecs were measured on."""
    by_image: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.ok and (row.quality is not None or row.psnr != IDENTICAL):
            by_image[row.image][row.codec].append(row)
    chosen = [(image, codecs) for image, codecs in by_image.items() if len(codecs) > 1][:most]
    sheets = []
    for number, (image, codecs) in enumerate(chosen, start=1):
        sheets.append(_sheet(image, codecs, anchors))
        if progress is not None:
            progress(number, len(chosen), image)
    return sheets


def _sheet(image: str, codecs: dict[str, list[Row]], anchors: Sequence[Anchor]) -> Sheet:
    pixels = images.read(image).pixels
    target = _target(list(codecs.values()))
    window = busiest_window(pixels, HEIGHT, WIDTH)
    crops = []
    for anchor in anchors:
        if anchor.name not in codecs:
            continue
        try:
            data = fit(anchor, pixels, target, codecs[anchor.name])
            decoded = conform(anchor.decode(data), pixels)
        except Exception:  # noqa: S112 - of a foreign codec; its failures are rows of the report already
            continue
        numbers = distortions(pixels, decoded)
        crops.append(
            Crop(anchor.name, _picture(decoded[window]), len(data), numbers["psnr"], numbers["ssim"])
        )
    return Sheet(image, target, _picture(pixels[window]), tuple(crops))


def _target(groups: Sequence[Sequence[Row]]) -> int:
    """The smallest fixed rate, or a size between the smallest and the largest that all codecs reach."""
    fixed = [row.bytes or 0 for group in groups for row in group if row.quality is None]
    if fixed:
        return min(fixed)
    smallest = max(min(row.bytes or 0 for row in group) for group in groups)
    largest = min(max(row.bytes or 0 for row in group) for group in groups)
    return max(smallest, min(int(ROOM * smallest), largest))


def fit(anchor: Anchor, pixels: Pixels, target: int, measured: Sequence[Row]) -> bytes:
    """The largest file of at most ``target`` bytes that a search between measured qualities finds.

    Stops within 2 % of the target. Where nothing is small enough, the smallest measured file is made.
    """
    ordered = sorted(measured, key=lambda row: row.bytes or 0)
    below = [row for row in ordered if (row.bytes or 0) <= target]
    above = [row for row in ordered if (row.bytes or 0) > target]
    low = (below[-1] if below else ordered[0]).quality
    best = anchor.encode(pixels, low)
    high = above[0].quality if above else None
    if not below or low is None or high is None:
        return best
    whole = anchor.scale is None or anchor.scale.whole
    while len(best) < (1 - TOLERANCE) * target and abs(high - low) > (1 if whole else 0.05):
        middle = (low + high) // 2 if whole else (low + high) / 2
        data = anchor.encode(pixels, middle)
        if len(best) <= len(data) <= target:
            best, low = data, middle
        elif len(data) > target:
            high = middle
        else:
            break  # not monotonous here; what there is will do
    return best


def busiest_window(pixels: Pixels, height: int, width: int) -> tuple[slice, slice]:
    """Where the mean absolute gradient over ``height x width`` pixels is largest (on a grid of 16 pixels)."""
    gray = pixels.mean(axis=2)
    rows, columns = gray.shape
    height, width = min(height, rows), min(width, columns)
    detail = np.zeros((rows + 1, columns + 1))
    detail[1:-1, 1:-1] = np.abs(np.diff(gray, axis=0))[:, 1:] + np.abs(np.diff(gray, axis=1))[1:]
    total = detail.cumsum(axis=0).cumsum(axis=1)
    places = [(y, x) for y in range(0, rows - height + 1, 16) for x in range(0, columns - width + 1, 16)]
    y, x = max(
        places,
        key=lambda place: (
            total[place[0] + height, place[1] + width]
            - total[place[0], place[1] + width]
            - total[place[0] + height, place[1]]
            + total[place]
        ),
    )
    return slice(y, y + height), slice(x, x + width)


def _picture(pixels: Pixels) -> bytes:
    """A small file for the page: exact where the picture is tiny, WebP of high quality otherwise."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    if pixels.size <= 4096:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "WEBP", quality=95, method=4)
    return buffer.getvalue()
