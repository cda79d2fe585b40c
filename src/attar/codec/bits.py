"""Where the bits of a file are: the ideal code length of its symbols, by channel and by place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.codec.tables import Table, symbol_bits
from attar.codec.tiling import Area

__all__ = ["Tally"]


class Tally:
    """Bits of the symbols of a latent of ``shape`` (..., L), counted while they are decoded.

    ``channels``: (L,) of each channel; ``hyper_channels``: of each channel of the hyper-latent, empty without
    one; ``places``: (h, w) of each place, all channels together, those of the hyper-latent spread evenly over
    the places that each of its elements is for; None for a latent that is no grid. All in bits.
    """

    def __init__(
        self, shape: tuple[int, ...], tables: Sequence[Table], hyper_channels: int = 0, first_scale: int = 0
    ) -> None:
        self.tables, self.first_scale = tables, first_scale
        self.channels = np.zeros(shape[-1])
        self.hyper_channels = np.zeros(hyper_channels)
        self.places = np.zeros(shape[:2]) if len(shape) == 3 else None

    @property
    def total(self) -> float:
        """Bits of all symbols."""
        return float(self.channels.sum() + self.hyper_channels.sum())

    def add(
        self, area: Area, index: NDArray[np.uint8], symbols: NDArray[np.int32], mask: NDArray[np.bool_]
    ) -> None:
        """Symbols (h, w, L) of a part of the latent, those in ``mask``, of which ``index`` chose the scale."""
        self._count(self.channels, self._bits(index, symbols, mask, self.first_scale), area, 1)

    def add_hyper(self, area: Area, index: NDArray[Any], symbols: NDArray[np.int32], ratio: int) -> None:
        """Symbols (h, w, Z) of a part of the hyper-latent, each for ``ratio`` places of the latent each way."""
        bits = self._bits(index, symbols, np.ones(symbols.shape, np.bool_), 0)
        self._count(self.hyper_channels, bits, area.scaled(ratio), ratio)

    def add_factorized(self, symbols: NDArray[np.int32], area: Area | None) -> None:
        """Symbols (..., L) whose tables are those of their channels; without an area, all of the latent."""
        channels = range(symbols.shape[-1])
        bits = [symbol_bits(self.tables[k], symbols[..., k]) for k in channels]
        self._count(self.channels, np.stack(bits, axis=-1), area, 1)

    def _bits(
        self, index: NDArray[Any], symbols: NDArray[np.int32], mask: NDArray[np.bool_], first: int
    ) -> NDArray[np.float64]:
        """Of the symbols in ``mask``, else 0; ``index`` counts from the table ``first``."""
        bits = np.zeros(symbols.shape)
        for table in np.unique(index[mask]).tolist():
            chosen = mask & (index == table)
            bits[chosen] = symbol_bits(self.tables[first + table], symbols[chosen])
        return bits

    def _count(
        self, channels: NDArray[np.float64], bits: NDArray[np.float64], area: Area | None, ratio: int
    ) -> None:
        channels += bits.reshape(-1, bits.shape[-1]).sum(axis=0)
        if self.places is not None and area is not None:
            each = bits.sum(axis=-1) / ratio**2
            self.places[area.within()] += each.repeat(ratio, axis=0).repeat(ratio, axis=1)
