"""Frequency tables: the integer probability distributions that a bundle carries, and their invariants.

A table codes the contiguous symbols ``minimum .. minimum + n - 2`` and ends with the *escape*, which stands
for every other int32. Frequencies are integers >= 1 that sum to exactly ``TOTAL``: nothing floating-point
decides a probability when a file is coded or decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attar.errors import BundleError

__all__ = [
    "MAXIMUM_LENGTH",
    "PRECISION_BITS",
    "TOTAL",
    "Table",
    "expected_bits",
    "quantise_probabilities",
    "symbol_bits",
]

PRECISION_BITS = 24
"""Bits of a frequency; the precision at which constriction's 64-bit ANS coder works."""
TOTAL = 1 << PRECISION_BITS
"""Sum of the frequencies of every table."""
MAXIMUM_LENGTH = 1 << 16
"""Most entries of one table, the escape included."""

INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, eq=False)
class Table:
    """One distribution over the symbols ``minimum .. maximum`` and the escape.

    ``frequencies`` is an integer array of shape ``(n,)``, every entry >= 1, sum :data:`TOTAL`; its last entry
    is the escape. Raises :class:`BundleError` when an invariant does not hold.
    """

    minimum: int
    frequencies: NDArray[np.int64]

    def __post_init__(self) -> None:
        given = np.asarray(self.frequencies)
        if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
            raise BundleError(
                f"a table's frequencies are a list of integers, not {given.dtype} of shape {given.shape}"
            )
        if not 2 <= given.size <= MAXIMUM_LENGTH:
            raise BundleError(f"a table has 2 to {MAXIMUM_LENGTH} entries, not {given.size}")
        if int(given.min()) < 1:
            raise BundleError(f"every frequency of a table is at least 1, not {int(given.min())}")
        if int(given.max()) > TOTAL or (total := int(given.sum(dtype=np.int64))) != TOTAL:
            found = (
                f"one of them is {int(given.max())}" if int(given.max()) > TOTAL else f"the sum is {total}"
            )
            raise BundleError(f"the frequencies of a table sum to {TOTAL}; {found}")
        if not (INT32.min <= self.minimum and self.minimum + given.size - 2 <= INT32.max):
            raise BundleError(
                f"a table's symbols are int32; minimum {self.minimum} with {given.size} entries is not"
            )
        own = np.array(given, dtype=np.int64)
        own.flags.writeable = False
        object.__setattr__(self, "minimum", int(self.minimum))
        object.__setattr__(self, "frequencies", own)

    @classmethod
    def from_probabilities(cls, minimum: int, probabilities: ArrayLike) -> Table:
        """Table of ``minimum ..`` from weights of shape ``(n,)``, the last one the escape's."""
        return cls(minimum, quantise_probabilities(probabilities))

    @classmethod
    def from_json(cls, document: object) -> Table:
        """Table from ``{"minimum": int, "frequencies": [int, ...]}``; raises :class:`BundleError`."""
        if not isinstance(document, Mapping) or set(document) != {"minimum", "frequencies"}:
            raise BundleError('a table is {"minimum": integer, "frequencies": [integers]} and nothing else')
        minimum, frequencies = document["minimum"], document["frequencies"]
        if not isinstance(frequencies, list) or not all(
            type(value) is int for value in [minimum, *frequencies]
        ):
            raise BundleError("a table's minimum and frequencies are integers")
        if any(not 1 <= value <= TOTAL for value in frequencies):
            raise BundleError(f"every frequency of a table is 1 to {TOTAL}")
        return cls(minimum, np.array(frequencies, dtype=np.int64))

    def to_json(self) -> dict[str, Any]:
        """The document that :meth:`from_json` reads."""
        return {"minimum": self.minimum, "frequencies": self.frequencies.tolist()}

    @property
    def maximum(self) -> int:
        """Largest symbol that needs no escape."""
        return self.minimum + self.frequencies.size - 2

    @property
    def entropy_bits(self) -> float:
        """Mean bits per symbol when symbols follow the table, an escape counted as one symbol."""
        p = self.frequencies / TOTAL
        return float(-(p * np.log2(p)).sum())


def quantise_probabilities(probabilities: ArrayLike) -> NDArray[np.int64]:
    """Integer frequencies of shape ``(n,)``, every one >= 1, that sum to :data:`TOTAL`.

    ``probabilities``: weights of shape ``(n,)``, finite, >= 0, with a positive sum. Each entry gets 1 and a
    share of the rest by largest remainder (Hamilton's method), ties to the lower position, so the result
    depends on the weights alone. Raises :class:`BundleError` for weights that are no distribution.
    """
    weights = np.asarray(probabilities, dtype=np.float64)
    if weights.ndim != 1 or not 2 <= weights.size <= MAXIMUM_LENGTH:
        raise BundleError(
            f"a table needs 2 to {MAXIMUM_LENGTH} probabilities in one row, not shape {weights.shape}"
        )
    if not np.isfinite(weights).all() or weights.min() < 0 or weights.max() == 0:
        raise BundleError("probabilities are finite, not negative, and not all zero")
    weights = weights / weights.max()  # no overflow in the sum
    shares = weights / weights.sum() * (TOTAL - weights.size)
    frequencies: NDArray[np.int64] = np.floor(shares).astype(np.int64)
    missing = TOTAL - weights.size - int(frequencies.sum())
    # Rounding of the sum itself can leave the floors a few units off in either direction.
    order = np.argsort(-(shares - frequencies), kind="stable")
    while missing:
        step = 1 if missing > 0 else -1
        able = order if step > 0 else order[::-1][frequencies[order[::-1]] > 0]
        chosen = able[: abs(missing)]
        frequencies[chosen] += step
        missing -= step * chosen.size
    return frequencies + 1


def expected_bits(table: Table, symbols: ArrayLike) -> float:
    """Ideal code length in bits of int symbols of any shape under ``table``, bytes of escapes included."""
    return float(symbol_bits(table, symbols).sum())


def symbol_bits(table: Table, symbols: ArrayLike) -> NDArray[np.float64]:
    """:func:`expected_bits` of each of the symbols, in their shape."""
    values = np.asarray(symbols, dtype=np.int64)
    escape = table.frequencies.size - 1
    outside = (values < table.minimum) | (values > table.maximum)
    places = np.where(outside, escape, values - table.minimum)
    bits: NDArray[np.float64] = PRECISION_BITS - np.log2(table.frequencies[places])
    above = values > table.maximum
    distance = np.where(above, values - table.maximum, table.minimum - values) - 1
    coded = np.maximum(2 * distance + ~above, 1)
    return bits + np.where(outside, 8 * (1 + np.floor(np.log2(coded) / 7)), 0.0)
