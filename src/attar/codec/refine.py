"""Refining the symbols of one image at the encoder: a better file of the same model and decoder.

The analysis network only guesses which symbols are best for an image. Trying their neighbours with the
decoder itself finds better ones: rate-distortion optimised quantisation (Ramchandran and Vetterli 1994) by
coordinate descent, without gradients. Each round decodes the image once for every symbol moved by one
either way, then takes the most profitable moves together, as many as lower the cost most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from attar.codec.tables import PRECISION_BITS, Table

__all__ = ["MAX_EFFORT", "MAX_SYMBOLS", "Refiner"]

MAX_EFFORT = 9
"""Rounds of the highest effort; further ones find next to nothing."""
MAX_SYMBOLS = 512
"""Largest latent that is refined: a round decodes an image twice for each symbol."""
TOGETHER = (1, 2, 3, 4, 6, 8, 12, 16)
"""How many of the most profitable moves are tried at once."""
PRICE = 2.0
"""Price of a bit per pixel, in the image's own mean squared error: about what keeps a digit's size."""
BLOCK = 1 << 20
"""Pixels that are decoded at once."""


class Refiner:
    """Refines latents that are vectors of few symbols, one table each.

    ``synthesise``: symbols int32 (N, L) -> images uint8 (N, H, W, C). ``tables``: one for each symbol.
    """

    def __init__(
        self, synthesise: Callable[[NDArray[np.int32]], NDArray[np.uint8]], tables: Sequence[Table]
    ) -> None:
        self.synthesise = synthesise
        self.first = np.array([table.minimum for table in tables], dtype=np.int64)
        self.last = np.array([table.maximum for table in tables], dtype=np.int64)
        self.bits = np.full((len(tables), int((self.last - self.first).max()) + 1), np.inf)
        for row, table in zip(self.bits, tables, strict=True):
            row[: table.frequencies.size - 1] = PRECISION_BITS - np.log2(table.frequencies[:-1])

    def refine(self, images: NDArray[np.uint8], symbols: NDArray[np.int32], effort: int) -> NDArray[np.int32]:
        """Symbols (B, L) of images (B, H, W, C) of no higher cost, which is error plus price times rate.

        ``effort``: rounds, 0 to :data:`MAX_EFFORT`. An image with an escaped symbol stays as it is.
        """
        coded = np.all((symbols >= self.first) & (symbols <= self.last), axis=1)
        symbols = symbols.copy()
        step = max(1, BLOCK // (images[0].size * (2 * symbols.shape[1] + 1)))
        for start in range(0, len(images), step):
            chosen = np.flatnonzero(coded[start : start + step]) + start
            if chosen.size:
                symbols[chosen] = self._refine(images[chosen], symbols[chosen], effort)
        return symbols

    def _refine(
        self, images: NDArray[np.uint8], symbols: NDArray[np.int32], effort: int
    ) -> NDArray[np.int32]:
        error = self._errors(images, symbols[:, None])[:, 0]
        price = PRICE * error / (images.shape[1] * images.shape[2])  # (B,) per bit
        for _ in range(effort):
            gain, move = self._gains(images, symbols, price)  # (B, L) each
            order = np.argsort(-gain, axis=1, kind="stable")
            ranks = np.argsort(order, axis=1, kind="stable")
            trials = [symbols]
            trials += [symbols + np.where((ranks < count) & (gain > 0), move, 0) for count in TOGETHER]
            tried = np.stack(trials, axis=1).astype(np.int32)  # (B, 1 + TOGETHER, L)
            best = self._costs(images, tried, price).argmin(axis=1)
            if not best.any():
                break
            symbols = tried[np.arange(len(tried)), best]
        return symbols

    def _gains(
        self, images: NDArray[np.uint8], symbols: NDArray[np.int32], price: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """What the better neighbour of each symbol saves of the cost, and which one that is: +1 or -1."""
        length = symbols.shape[1]
        steps = np.concatenate([np.zeros((1, length)), np.eye(length), -np.eye(length)]).astype(np.int32)
        costs = self._costs(images, symbols[:, None] + steps, price)  # (B, 1 + 2 L)
        up, down = costs[:, 1 : length + 1], costs[:, length + 1 :]
        return costs[:, :1] - np.minimum(up, down), np.where(up <= down, 1, -1).astype(np.int32)

    def _costs(
        self, images: NDArray[np.uint8], tried: NDArray[np.int32], price: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Cost (B, N) of each image with each of its symbols (B, N, L); infinite beyond the tables."""
        within = (tried >= self.first) & (tried <= self.last)
        places = np.clip(tried, self.first, self.last) - self.first
        rate = self.bits[np.arange(len(self.first)), places].sum(axis=-1)
        costs = self._errors(images, tried) + price[:, None] * rate
        return np.where(within.all(axis=-1), costs, np.inf)

    def _errors(self, images: NDArray[np.uint8], tried: NDArray[np.int32]) -> NDArray[np.float64]:
        """Mean squared error (B, N) in levels of 255."""
        decoded = self.synthesise(tried.reshape(-1, tried.shape[-1]))
        decoded = decoded.reshape(*tried.shape[:2], *decoded.shape[1:])
        difference = decoded.astype(np.float32) - images[:, None].astype(np.float32)
        errors: NDArray[np.float64] = np.square(difference, out=difference).mean(
            axis=(2, 3, 4), dtype=np.float64
        )
        return errors
