"""The best latent for one image: found by following the gradient of what its file costs, for the decoder there is.

Stochastic Gumbel annealing (Yang, Bamler and Mandt 2020, arXiv:2006.04240). Every symbol is drawn softly from its two
neighbours, at a temperature that falls, and the latent follows the gradient of bits + lambda * error by Adam:

    first     symbols of the first pass, drawn from (latent - mean) / step
    second    means of the second pass, as the first tells them; its symbols, drawn likewise
    image     of both; its error is pulled back to both, and through the means of the second to the first

Hyper-latents stay what the analysis gave, and so do the tables that they choose; what the first pass does to the
second's tables is seen, and not followed. A latent is found in windows, with a margin that is found once more with the
next one, so that memory does not grow with the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.codec import gradient
from attar.codec.container import Header, write_header
from attar.codec.distortion import LOSSES, wrong_shape
from attar.codec.hyperprior import HyperCoder, first_pass, rounded
from attar.codec.tables import symbol_bits
from attar.codec.tiling import Area, Derived, Plane, Tiled, everything
from attar.codec.values import levels

__all__ = ["STEPS", "Annealer", "Watch", "can_anneal"]

Floats = NDArray[np.float32]
Watch = Callable[[int, int], None]
"""Is told the steps that are done, and how many there are."""

STEPS = (0, 10, 20, 40, 70, 110, 160, 220, 320, 500)
"""Steps of each effort."""
HOTTEST, COLDEST, COOLING = 0.5, 0.2, 3.0
"""Temperatures: the first fifth of the steps at the hottest, then falling exponentially."""
NOISE = 0.4
"""Logistic noise of a draw, of the one that would draw a neighbour as often as its odds say: with less of it the
gradient is nearer to that of the symbols that are likely, and fewer steps find a latent as good."""
RATE = 0.02
"""Learning rate, in quantisation steps."""
MOMENTS = 0.8, 0.99
WINDOW, MARGIN = 768, 64
"""Pixels on a side that are found together, and around them."""
WIDEST = 255
"""Symbols further from 0 cost what this one does."""


def can_anneal(coder: object) -> bool:
    """Whether the cost is known and can be followed: a hyperprior that knows its loss and lambda."""
    if not isinstance(coder, HyperCoder):
        return False
    manifest, networks = coder.networks.bundle.manifest, coder.networks
    loss = LOSSES.get(str(manifest.training.get("loss", "mse")))
    if loss is None or manifest.size is not None or _lambdas(coder) is None:
        return False
    return loss.known(networks) and (not coder.prior.context or networks.can_pull("context_means", "found"))


class Annealer:
    """Finds the latent of an image, a plane (H, W, C) as the analysis took it, of which the header's size counts.

    ``plain``: its latent (h, w, L) as the analysis gave it. ``watch`` is told of every one of the ``steps``.
    """

    def __init__(
        self,
        coder: HyperCoder,
        image: Plane,
        plain: Plane,
        header: Header,
        steps: int,
        watch: Watch | None = None,
    ) -> None:
        self.coder, self.networks, self.image, self.plain = coder, coder.networks, image, plain
        self.size, self.quality = (header.height, header.width), levels([header.quality])
        self.steps, self.watch, self.local = steps, watch, coder.steps(write_header(header))
        lowest, highest = _lambdas(coder) or (0.0, 0.0)
        level = float(self.quality[0])
        self.price = lowest ** (1 - level) * highest**level
        everything_of_255 = np.arange(-WIDEST, WIDEST + 1)
        self.bits = np.stack([symbol_bits(table, everything_of_255) for table in coder.tables]).astype(
            np.float32
        )
        ratio = coder.prior.stride // coder.stride
        shape = (plain.shape[0] // ratio, plain.shape[1] // ratio, coder.prior.channels)
        self.hyper = Derived(shape, self._hyper)
        unit = max(1, coder.networks.bundle.manifest.multiple // coder.stride)
        self.margin = -(-MARGIN // (coder.stride * unit)) * unit
        self.side = max(1, WINDOW // (coder.stride * unit)) * unit
        self.windows = -(-plain.shape[0] // self.side) * -(-plain.shape[1] // self.side)
        self.done = 0
        self.plane = Tiled(plain.shape, np.float32, self.side, self._found)

    def encode(self, header: bytes, *, tiled: bool = False, out: Floats | None = None) -> bytes:
        """Body of the chunk for the latent that is found; arguments as of :meth:`HyperCoder.encode_plane`."""
        return self.coder.encode_plane(
            self.plane, header, tiled=tiled, out=out, told=self.plain, told_from=self.first_row
        )

    def first_row(self, row: int) -> int:
        """The first row of the plain latent that rows of the found one from ``row`` on are made from."""
        top = max(0, row // self.side * self.side - self.margin)
        if top >= self.plain.shape[0]:
            return row
        needed = top
        for name in ("hyper_scales", "hyper_means"):
            hyper, _ = self.networks.window(name, Area(top, top + 1, 0, 1), self.hyper.shape)
            window, _ = self.networks.window("hyper_analysis", hyper, self.plain.shape)
            needed = min(needed, window.top)
        return needed

    def _hyper(self, area: Area) -> Floats:
        values = self.networks.run_on("hyper_analysis", area, {"latent": self.plain})
        return rounded(values, self.coder.name).astype(np.float32)

    def _found(self, area: Area) -> Floats:
        """The latent of a window."""
        margin = self.margin
        whole = everything(self.plain.shape)
        around = Area(
            area.top - margin, area.bottom + margin, area.left - margin, area.right + margin
        ).common(whole)
        window = _Window(self, around)
        values = window.plain.copy()
        random = np.random.default_rng([area.top, area.left])
        first, second = MOMENTS
        mean, square = np.zeros_like(values), np.zeros_like(values)
        for step in range(self.steps):
            done = step / self.steps
            heat = float(np.clip(HOTTEST * np.exp(-COOLING * (done - 0.2)), COLDEST, HOTTEST))
            slope = window.slope(values, _Draw(random, heat))
            mean += (1 - first) * (slope - mean)
            square += (1 - second) * (slope * slope - square)
            rate = RATE * min(1.0, (1 - done) / 0.3 + 0.05) / (1 - first ** (step + 1))
            values -= (
                rate * window.step * mean / (np.sqrt(square / (1 - second ** (step + 1))) + np.float32(1e-8))
            )
            self.done += 1
            if self.watch:
                self.watch(self.done, self.steps * self.windows)
        best = values if window.cost(values) < window.cost(window.plain) else window.plain
        return np.ascontiguousarray(best[area.within(around.top, around.left)])


@dataclass(frozen=True)
class _Draw:
    """How symbols are drawn."""

    random: np.random.Generator
    heat: float


@dataclass(frozen=True)
class _Drawn:
    """Soft symbols (h, w, L), their derivative by the latent, and the bits' derivative by them."""

    symbols: Floats
    steep: Floats
    bits: Floats


class _Window:
    """A part of a latent that is found together, and what does not change meanwhile."""

    def __init__(self, of: Annealer, area: Area) -> None:
        self.of, self.coder, self.networks = of, of.coder, of.networks
        self.plain: Floats = np.array(of.plain.read(area), np.float32)
        self.first = first_pass(of.coder.prior, area, self.plain.shape[2])
        given = {"hyper_symbols": of.hyper}
        self.scales, self.means = (
            self.networks.run_on(name, area, given)[None].astype(np.float32)
            for name in ("hyper_scales", "hyper_means")
        )
        self.mean = self._elements(self.means)
        # The encoder is told the same hyper-latents, and so will choose the same steps.
        index = np.clip(self._elements(self.scales), 0, of.coder.prior.scales - 1).astype(np.uint8)
        self.shift = of.local.shift(index)
        self.step, self.index = of.local.step(self.shift), self._shifted(index)
        pixels = area.scaled(of.coder.stride)
        target = of.image.read(pixels)[None].astype(np.float32) / np.float32(255)
        weight = np.zeros_like(target)
        inside = pixels.common(Area(0, of.size[0], 0, of.size[1]))
        weight[0][inside.within(pixels.top, pixels.left)] = 1
        loss = LOSSES[str(self.networks.bundle.manifest.training.get("loss", "mse"))]
        self.error = loss(self.networks, of.quality, target, weight, of.price)

    def slope(self, values: Floats, draw: _Draw) -> Floats:
        """Gradient of the cost in bits by the values (h, w, L) in steps, at one draw of all symbols."""
        first, index, mean = self.first, self.index, self.mean
        drawn, steep, bits = (np.zeros_like(values) for _ in range(3))
        out = _Drawn(drawn, steep, bits)
        self._draw(first, values, mean, index, draw, out)
        step = self.step
        known = np.where(first, drawn * step + mean, np.float32(0))
        if self.coder.prior.context:
            index, mean = self._second(drawn, known)
            self._draw(~first, values, mean, index, draw, out)
        pull = self._elements(self.error.slope((drawn * step + mean)[None]))
        if self.coder.prior.context:
            # Symbols of the second pass that make up for another mean do so as far as they are drawn softly.
            seed = np.where(first, np.float32(0), pull - (pull + bits / step) * steep)
            seeds = {"means": self.means, "found": known[None], gradient.SEED: seed[None]}
            _, pulled = self.networks.pull("context_means", "found", seeds)
            pull = pull + np.where(first, self._elements(pulled), np.float32(0))
        return np.asarray((pull * step + bits) * steep)

    def cost(self, values: Floats) -> float:
        """Bits of the nearest symbols, and what their error is worth."""
        first, index, mean, step = self.first, self.index, self.mean, self.step
        symbols = np.where(first, np.rint((values - mean) / step), np.float32(0))
        if self.coder.prior.context:
            index, mean = self._second(symbols, np.where(first, symbols * step + mean, np.float32(0)))
            symbols = np.where(first, symbols, np.rint((values - mean) / step))
        bits = self.of.bits[self._tables(index), _places(symbols)]
        return float(bits.sum(dtype=np.float64) + self.error.cost((symbols * step + mean)[None]))

    def _second(self, symbols: Floats, known: Floats) -> tuple[Floats, Floats]:
        """Table indexes and means (h, w, L) of both passes, of the second as the first's symbols tell them."""
        told = np.rint(np.where(self.first, symbols, np.float32(0)))[None]
        index = self.networks.run("context_scales", {"scales": self.scales, "symbols": told})
        mean = self.networks.run("context_means", {"means": self.means, "found": known[None]})
        return (
            np.where(self.first, self.index, self._shifted(self._elements(index))),
            np.where(self.first, self.mean, self._elements(mean)),
        )

    def _elements(self, values: Floats) -> Floats:
        """What a network says of the elements (h, w, L) of the latent, finite; it may say more behind them."""
        shape = self.plain.shape
        if values.ndim != 4 or values[0, ..., : shape[2]].shape != shape:
            raise wrong_shape(self.networks, values.shape, (1, *shape))
        return np.nan_to_num(values[0, ..., : shape[2]])

    def _shifted(self, index: NDArray[Any]) -> Floats:
        """Tables of the elements, as their steps make them."""
        return self.of.local.shifted(index, self.shift).astype(np.float32)

    def _tables(self, index: Floats) -> NDArray[np.intp]:
        return np.clip(index, 0, self.coder.prior.scales - 1).astype(np.intp) + self.coder.prior.first_scale

    def _draw(
        self, mask: NDArray[np.bool_], values: Floats, mean: Floats, index: Floats, draw: _Draw, out: _Drawn
    ) -> None:
        """Draw the symbols that are in ``mask``."""
        part, index = ((values - mean) / self.step)[mask], index[mask]
        below = np.floor(part)
        part = np.clip(part - below, np.float32(1e-4), np.float32(1 - 1e-4))
        noise = np.clip(draw.random.random(part.size, np.float32), np.float32(1e-6), np.float32(1 - 1e-6))
        # atanh(part) - atanh(1 - part) is half the logarithm of this.
        odds = np.log((1 + part) * part / ((1 - part) * (2 - part))) * np.float32(0.5 / draw.heat)
        odds += np.float32(NOISE) * np.log(noise / (1 - noise))
        upper = 1 / (1 + np.exp(np.clip(odds * np.float32(-1 / draw.heat), -60, 60)))
        bend = 1 / (1 - part * part) + 1 / (part * (2 - part))
        out.symbols[mask] = below + upper
        out.steep[mask] = upper * (1 - upper) * bend * np.float32(1 / draw.heat**2)
        tables, places = self._tables(index), np.minimum(_places(below), 2 * WIDEST - 1)
        out.bits[mask] = self.of.bits[tables, places + 1] - self.of.bits[tables, places]


def _places(symbols: Floats) -> NDArray[np.intp]:
    """Where the bits of symbols are."""
    return np.nan_to_num(np.clip(symbols, -WIDEST, WIDEST)).astype(np.intp) + WIDEST


def _lambdas(coder: HyperCoder) -> tuple[float, float] | None:
    """Bits per pixel that a distortion of 1 is worth, at the lowest and the highest quality.

    None where the bundle does not know it.
    """
    training = {"weight": 1.0, **coder.networks.bundle.manifest.training}
    given: list[Any] = [training.get(name) for name in ("lambda_lowest", "lambda_highest", "weight")]
    if not all(isinstance(value, (int, float)) and 0 < value < 1e9 for value in given):
        return None
    lowest, highest, weight = given
    return weight * lowest, weight * highest
