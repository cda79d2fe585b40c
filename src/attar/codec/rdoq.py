"""Choosing the symbols of a latent for one image: a smaller file of the same quality, for the same decoder.

Rounding to the nearest symbol is blind to what errors do together, and to what a symbol costs. Here every symbol is
chosen by bits + price * squared error of the image (rate-distortion optimised quantisation: Ramchandran and
Vetterli 1994, Karczewicz et al. 2008), in turns: a group of channels is chosen for the errors that the groups
before it have made, which it makes good as far as it can.

What a symbol does to the image is measured, not derived, so that it holds for any bundle: the synthesis is given
impulses in this very latent, and what changes is their response. With the responses K, the error of the image is
``e + K d`` for moves ``d`` of the latent, its gradient ``K'e + K'K d``. On trained photo models this agrees with the
true gradient to a correlation of 0.97 or more. Nothing is differentiated, and no network but those of the codec is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.codec.hyperprior import HyperCoder
from attar.codec.tables import Table, symbol_bits
from attar.codec.tiling import Area, Held, Plane, everything
from attar.codec.values import levels
from attar.errors import BundleError

__all__ = ["Chooser", "Response", "can_choose", "encode"]

Floats = NDArray[np.float32]
Symbols = NDArray[np.int32]


@dataclass(frozen=True)
class Trial:
    """How symbols are chosen. ``first``, ``second``: price of an error in each pass, times what it is worth.

    What the first pass tells makes the second cheaper, so its errors weigh more than their pixels say. ``hyper``:
    bits that a squared unit of error of the hyper-latent is worth. ``group``: channels that are chosen together.
    ``limit``: most that a symbol is moved to make up for others; responses are measured with moves of 1, and far
    from those of a synthesis that bends.
    """

    first: float = 1.9
    second: float = 0.8
    hyper: float = 20.0
    group: int = 16
    limit: float = 2.0


TRIALS = (
    Trial(first=2.2, second=2.2, limit=0.18),
    Trial(),
    Trial(hyper=8.0, group=4),
    Trial(hyper=4.0, group=4),
    Trial(first=1.45, hyper=8.0, group=4),
    Trial(first=2.35, hyper=8.0, group=4),
    Trial(second=1.0, hyper=8.0, group=4),
    Trial(first=1.45, second=0.65, hyper=8.0, group=4),
    Trial(hyper=50.0, group=4),
)
"""What the efforts from 1 on try, each one more; the file of the lowest cost is taken."""
PRICE = 9.0
"""Where a bundle does not say what it was trained for: bits that a squared level of error is worth, times the squared
levels that a unit of the latent makes (the median of the channels).

For steps of 1 at a high rate it is 6 / ln 2 = 8.7; the lambdas of the first photo models said 8.9 to 11.7.
"""
CELL = 4
"""Impulses are this many positions apart: their responses reach one position beyond their own, and do not meet."""
PATCH = 32
"""Side of the part of the latent that they are measured in."""
WIDEST = 255
"""Symbols further from 0 are rounded."""
MOST_NUMBERS = 1 << 25
"""Numbers of all responses; models with more are not refined."""


def can_choose(coder: object) -> bool:
    """Whether there is a choice: a hyperprior trained for squared errors, of a size that responses can be held of."""
    if not isinstance(coder, HyperCoder):
        return False
    manifest = coder.networks.bundle.manifest
    channels = manifest.latent.channels
    numbers = channels * max((3 * coder.stride) ** 2 * manifest.channels, 9 * channels)
    return manifest.size is None and manifest.training.get("loss", "mse") == "mse" and numbers <= MOST_NUMBERS


class Response:
    """What a unit of each channel does to the image, in levels of 255: its own position and one around it.

    ``kernels``: (L, 3 s, 3 s, C) of a latent with ``s`` pixels per position.
    """

    def __init__(self, kernels: Floats) -> None:
        self.channels, self.stride = len(kernels), kernels.shape[1] // 3
        self.kernels = np.ascontiguousarray(kernels.reshape(self.channels, -1))
        energy = np.square(self.kernels).sum(axis=1)
        alive = energy[energy > 1e-6 * energy.max(initial=0)]
        self.median = float(np.median(alive)) if alive.size else 0.0
        self.energy = np.maximum(
            energy, np.float32(1e-3 * self.median)
        )  # (L,), squared levels per squared unit
        self.overlaps = {
            (down, right): self._overlap(kernels, down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)
        }

    def gradient(self, error: Floats) -> Floats:
        """Half the gradient of the squared ``error`` (H + 2 s, W + 2 s, C) by the latent, (h, w, L)."""
        side = 3 * self.stride
        windows = np.lib.stride_tricks.sliding_window_view(error, (side, side), axis=(0, 1))
        rows = windows[:: self.stride, :: self.stride].transpose(0, 1, 3, 4, 2)  # (h, w, 3 s, 3 s, C)
        return np.stack([row.reshape(len(row), -1) @ self.kernels.T for row in rows])

    def move(self, gradient: Floats, moves: Floats, channels: NDArray[np.int64]) -> None:
        """Bring a gradient (h, w, L) up to date with ``moves`` (h, w, n) of these channels."""
        height, width = gradient.shape[:2]
        for (down, right), overlap in self.overlaps.items():
            source = moves[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
            change = source.reshape(-1, len(channels)) @ overlap[channels]
            target = gradient[max(0, down) : height - max(0, -down), max(0, right) : width - max(0, -right)]
            target += change.reshape(*source.shape[:2], -1)

    def _overlap(self, kernels: Floats, down: int, right: int) -> Floats:
        """Inner products (L, L) of responses with those of the position ``(down, right)`` further."""
        side, rows, columns = 3 * self.stride, self.stride * down, self.stride * right
        here = kernels[:, max(0, rows) : side + min(0, rows), max(0, columns) : side + min(0, columns)]
        there = kernels[:, max(0, -rows) : side + min(0, -rows), max(0, -columns) : side + min(0, -columns)]
        product: Floats = here.reshape(self.channels, -1) @ there.reshape(self.channels, -1).T
        return product


class Chooser:
    """Chooses the symbols of the latent of one image, as :class:`attar.codec.hyperprior.Choice`.

    ``image``: its pixels as the analysis took them, a plane (H, W, C). ``whole``: the image is one that goes
    through networks whole; what several trials need is kept.
    """

    def __init__(self, coder: HyperCoder, image: Plane, quality: int, *, whole: bool) -> None:
        self.coder, self.image, self.quality, self.whole = coder, image, levels([quality]), whole
        self.level = float(self.quality[0])
        self.bits = np.stack([_bits(table) for table in coder.tables])
        self.trial = TRIALS[0]
        self.response: Response | None = None
        self.kept: dict[Area, Floats] = {}
        self.open: dict[Area, Floats] = {}

    def hyper(self, values: Floats) -> Floats:
        """Whole numbers for a hyper-latent (h, w, Z): the nearest, where their tables depend on each other."""
        if self.coder.prior.hyper_tables:
            return np.rint(values)
        return _cheapest(values, self.bits, np.arange(values.shape[2]), np.float32(self.trial.hyper))

    def choose(
        self, area: Area, latent: Plane, index: NDArray[Any], mean: Floats, mask: NDArray[np.bool_]
    ) -> Symbols:
        """Symbols int32 (h, w, L) of a tile in a pass, 0 outside of ``mask``."""
        response = self.measured(latent, area)
        target = latent.read(area) - mean
        symbols: Symbols = np.where(mask, np.rint(target), 0).astype(np.int32)
        if not response.median:
            return symbols
        second = area in self.open or not self.coder.prior.context
        price, limit = self.trial.second if second else self.trial.first, self.trial.limit
        gradient = self.open.setdefault(area, self._gradient(area, latent, response))
        weight = np.float32(price * self.worth(response)) * response.energy
        tables = index.astype(np.int64) + self.coder.prior.first_scale
        for start in range(0, response.channels, self.trial.group):
            part = np.arange(start, min(start + self.trial.group, response.channels))
            repaired = np.clip(-gradient[..., part] / response.energy[part], -limit, limit)
            wanted = target[..., part] + np.nan_to_num(repaired)
            chosen = _cheapest(wanted, self.bits, tables[..., part], weight[part])
            symbols[..., part] = np.where(mask[..., part], chosen, 0)
            moves = np.where(mask[..., part], chosen - target[..., part], np.float32(0))
            response.move(gradient, moves, part)
        return symbols

    def done(self, area: Area) -> None:
        """Nothing of a tile is needed any more."""
        self.open.pop(area, None)

    def first_row(self, row: int, latent: Plane) -> int:
        """The first row of the latent that tiles from ``row`` on are chosen by."""
        top = max(0, row - 1) * self.coder.stride
        needed, _ = self.coder.networks.window("synthesis", Area(top, top + 1, 0, 1), latent.shape)
        return needed.top

    def measured(self, latent: Plane, area: Area) -> Response:
        """The responses around the latent, measured once, in the first area that is asked for."""
        if self.response is None:
            self.response = self._measured(np.asarray(latent.read(area)))
        return self.response

    def worth(self, response: Response) -> float:
        """Bits that a squared level of error is worth in this image: lambda, where the bundle knows its own."""
        manifest = self.coder.networks.bundle.manifest
        training = {"weight": 1.0, **manifest.training}
        given: list[Any] = [training.get(name) for name in ("lambda_lowest", "lambda_highest", "weight")]
        if not all(isinstance(value, (int, float)) and 0 < value < 1e9 for value in given):
            return PRICE / response.median
        lowest, highest, weight = given
        price: float = weight * lowest ** (1 - self.level) * highest**self.level
        return price / manifest.channels

    def error(self, latent: Floats) -> float:
        """The squared error, in levels of 255, of the image that a whole latent is decoded to."""
        everywhere = everything(self.image.shape)
        painted = np.rint(self._painted(everywhere, Held(latent)))
        return float(np.square(painted - self.image.read(everywhere)).sum(dtype=np.float64))

    def _gradient(self, area: Area, latent: Plane, response: Response) -> Floats:
        """Of the error that the image has before anything is rounded."""
        if area in self.kept:
            return self.kept[area].copy()
        top, bottom, left, right = area.scaled(response.stride)
        margin = response.stride
        around = Area(top - margin, bottom + margin, left - margin, right + margin)
        inside = around.common(everything(self.image.shape))
        error = np.zeros((*around.size, self.image.shape[2]), np.float32)
        error[inside.within(around.top, around.left)] = self._painted(inside, latent) - self.image.read(
            inside
        )
        gradient = response.gradient(error)
        if self.whole:
            self.kept[area] = gradient.copy()
        return gradient

    def _painted(self, area: Area, latent: Plane) -> Floats:
        image = self.coder.networks.run_on("synthesis", area, {"latent": latent}, {"quality": self.quality})
        if image.shape[2] != self.image.shape[2]:
            raise BundleError(
                f"{self.coder.networks.bundle.source}: synthesis gave {image.shape[2]} channels; "
                f"{self.image.shape[2]} expected"
            )
        return np.clip(np.nan_to_num(image), 0, 1) * np.float32(255)

    def _measured(self, latent: Floats) -> Response:
        """The responses around a latent, of which at most a patch is looked at."""
        top, left = (max(0, (length - PATCH) // 2) for length in latent.shape[:2])
        patch = latent[top : top + PATCH, left : left + PATCH]
        missing = [(0, PATCH - length) for length in patch.shape[:2]]
        patch = np.ascontiguousarray(np.pad(patch, (*missing, (0, 0)), mode="wrap"))
        everywhere = everything(tuple(length * self.coder.stride for length in patch.shape[:2]))
        quiet = self._painted(everywhere, Held(patch))
        side = 3 * self.coder.stride
        kernels = np.empty((patch.shape[2], side, side, quiet.shape[2]), np.float32)
        corners = [(row, column) for row in range(0, PATCH, CELL) for column in range(0, PATCH, CELL)]
        for start in range(0, len(kernels), len(corners)):
            channels = range(start, min(start + len(corners), len(kernels)))
            struck = patch.copy()
            for channel, (row, column) in zip(channels, corners, strict=False):
                struck[row + 1, column + 1, channel] += _sign(channel)
            change = self._painted(everywhere, Held(struck)) - quiet
            for channel, (row, column) in zip(channels, corners, strict=False):
                window = Area(row, row + 3, column, column + 3).scaled(self.coder.stride)
                kernels[channel] = change[window.within()] * _sign(channel)
        return Response(kernels)


def encode(
    coder: HyperCoder,
    image: NDArray[np.uint8],
    latent: Floats,
    header: bytes,
    quality: int,
    effort: int,
    out: Floats | None = None,
) -> bytes:
    """Body of the chunk for the latent (h, w, L) of an image (H, W, C): the cheapest of ``effort`` trials.

    Never of a higher cost than :meth:`HyperCoder.encode` gives, which is bits and priced error together. ``out`` as
    there. Raises :class:`BundleError`.
    """
    chooser = Chooser(coder, Held(image), quality, whole=True)
    best: Floats = np.empty_like(latent)
    body = coder.encode(latent, header, best)
    response = chooser.measured(Held(latent), everything(latent.shape))
    if response.median:
        worth = chooser.worth(response)
        lowest = 8 * len(body) + worth * chooser.error(best)
        for chooser.trial in TRIALS[:effort]:
            decoded = np.empty_like(latent)
            tried = coder.encode(latent, header, decoded, chooser)
            cost = 8 * len(tried) + worth * chooser.error(decoded)
            if cost < lowest:
                lowest, body, best = cost, tried, decoded
    if out is not None:
        out[...] = best
    return body


def _cheapest(wanted: Floats, bits: Floats, tables: NDArray[Any], weight: Any) -> Floats:
    """The nearest whole number, or the next one towards 0 where bits and weighted squared error say so."""
    nearest = np.rint(wanted)
    nearer = nearest - np.sign(nearest)

    def cost(values: Floats) -> Floats:
        places = np.clip(values, -WIDEST, WIDEST).astype(np.int64) + WIDEST
        return np.asarray(bits[tables, places] + weight * np.square(wanted - values))

    return np.where(cost(nearer) < cost(nearest), nearer, nearest)


def _bits(table: Table) -> Floats:
    """Bits of the symbols ``-WIDEST .. WIDEST``."""
    return symbol_bits(table, np.arange(-WIDEST, WIDEST + 1)).astype(np.float32)


def _sign(channel: int) -> np.float32:
    """Impulses of both signs, so that together they make the image neither brighter nor darker."""
    return np.float32(1 - 2 * (channel % 2))
