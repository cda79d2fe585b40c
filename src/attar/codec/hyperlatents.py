"""Symbols of a tile of the hyper-latent <-> the first sections of its stream.

A table for each channel and one section; or, where the bundle has the network ``hyper_prior``, four sections::

    symbols known so far, which they are, quality --hyper_prior (integers)--> table and mean of the next ones

Means are whole numbers. A tile is coded without a look at its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from attar.codec.container import ANY_SIZE, read_header
from attar.codec.entropy import Section
from attar.codec.manifest import HYPER_LEVELS, HYPER_PASSES, Hyperprior
from attar.codec.networks import Networks
from attar.errors import BundleError

__all__ = ["HyperLatents", "grouped"]

Symbols = NDArray[np.int32]
Indexes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Take = Callable[[NDArray[np.int64]], Symbols]


class HyperLatents:
    """Codes tiles of the hyper-latent of one file, whose ``header`` tells the quality."""

    def __init__(self, prior: Hyperprior, networks: Networks, header: bytes) -> None:
        self.prior, self.networks = prior, networks
        self.tables = prior.first_scale + prior.scales
        self.level = 0
        if prior.hyper_tables:
            quality = read_header(header, max_pixels=ANY_SIZE).quality
            self.level = max(quality - 1, 0) // HYPER_LEVELS

    def sections(self, symbols: Symbols) -> list[Section]:
        """What codes the symbols (h, w, Z)."""
        if not self.prior.hyper_tables:
            counts = self._one_each(symbols.size // symbols.shape[2])
            return [(symbols.reshape(-1, symbols.shape[2]).T.ravel(), counts)]
        order = pass_of(symbols.shape)
        index, mean = self._chosen(symbols, order, range(HYPER_PASSES))
        found = []
        for number in range(HYPER_PASSES):
            places, counts = grouped(index[number], order == number, 0, self.tables)
            found.append(((symbols - mean[number]).ravel()[places], counts))
        return found

    def take(self, shape: tuple[int, int], take: Take) -> tuple[Symbols, Symbols, Indexes]:
        """Symbols of a tile, each (h, w, Z): what they are, what of them was coded, and by which tables.

        ``take`` gives the next section of that many symbols for each table.
        """
        channels = self.prior.channels
        if not self.prior.hyper_tables:
            coded = take(self._one_each(shape[0] * shape[1])).reshape(channels, -1).T
            symbols = coded.reshape(*shape, channels)
            return symbols, symbols, np.broadcast_to(np.arange(channels), symbols.shape)
        symbols = np.zeros((*shape, channels), dtype=np.int32)
        residuals, tables = np.zeros_like(symbols), np.zeros(symbols.shape, dtype=np.uint8)
        order = pass_of(symbols.shape)
        for number in range(HYPER_PASSES):
            mask = order == number
            index, mean = self._chosen(symbols, order, [number])
            places, counts = grouped(index[0], mask, 0, self.tables)
            residuals.ravel()[places] = take(counts)
            symbols = np.where(mask, residuals + mean[0], symbols)
            tables[mask] = index[0][mask]
        return symbols, residuals, tables

    def _one_each(self, count: int) -> NDArray[np.int64]:
        """The same number of symbols for the table of every channel."""
        counts = np.zeros(self.tables, dtype=np.int64)
        counts[: self.prior.channels] = count
        return counts

    def _chosen(
        self, symbols: Symbols, order: NDArray[np.int64], passes: range | list[int]
    ) -> tuple[Indexes, Symbols]:
        """Tables and means of all elements in each of ``passes``, both (passes, h, w, Z)."""
        shape = symbols.shape
        planes = pass_of((*shape[:2], HYPER_PASSES))
        known = np.full((len(passes), *shape[:2], HYPER_PASSES + 1), self.level, np.float32)
        given = np.zeros((len(passes), *shape), np.float32)
        for place, number in enumerate(passes):
            known[place, ..., :HYPER_PASSES] = planes < number
            given[place] = np.where(order < number, symbols, 0)
        values = self.networks.run("hyper_prior", {"hyper_symbols": given, "known": known})
        if values.shape != (*given.shape[:3], 2 * shape[2]):
            raise BundleError(
                f"{self.networks.bundle.source}: hyper_prior gave {values.shape}; tables and means expected"
            )
        # Written so that NaN fails as well.
        if not (np.abs(values).max(initial=0) < 1 << 24 and np.array_equal(np.rint(values), values)):
            raise BundleError(f"{self.networks.bundle.source}: hyper_prior gave what are no whole numbers")
        index, mean = values[..., : shape[2]], values[..., shape[2] :]
        if index.min(initial=0) < 0 or index.max(initial=0) >= self.prior.hyper_tables:
            last = self.prior.hyper_tables - 1
            raise BundleError(f"{self.networks.bundle.source}: hyper_prior chose tables outside of 0..{last}")
        return index.astype(np.uint8), mean.astype(np.int32)


def pass_of(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The pass of every element of a tile: 2 (row mod 2) + column mod 2 + channel, mod 4."""
    row, column, channel = np.ogrid[: shape[0], : shape[1], : shape[2]]
    found: NDArray[np.int64] = (2 * (row % 2) + column % 2 + channel) % HYPER_PASSES
    return found


def grouped(
    index: Indexes, mask: Mask, first: int, tables: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of the elements in ``mask`` sorted by table, and how many each of all ``tables`` codes.

    ``index`` counts from the table ``first``.
    """
    places = np.flatnonzero(mask)
    chosen = index.ravel()[places]
    counts = np.zeros(tables, dtype=np.int64)
    counts[first:] = np.bincount(chosen, minlength=tables - first)
    return places[np.argsort(chosen, kind="stable")], counts
