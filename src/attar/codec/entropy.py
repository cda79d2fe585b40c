"""Symbols <-> bytes: one ANS stack per file, with integer frequency tables and a checksum at its bottom.

The coder is constriction's ``AnsCoder`` (rANS after Duda, arXiv:1311.2540; 64-bit state, 32-bit words, 24-bit
frequencies). A table of integers reaches it unchanged: weights ``f - 1`` make its scale factor exactly 1.

The stack starts from the CRC-32 of the file's header and symbols. An ANS coder started from nothing wastes
up to 24 bits, one started from a checksum wastes none. Decoding is a bijection, so after the last symbol
either exactly that checksum is left, or the bytes are damaged or belong to another model.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from attar.codec.tables import INT32, PRECISION_BITS, Table
from attar.errors import FormatError

__all__ = ["Decoder", "EntropyCoder", "Section"]

Symbols = NDArray[np.int32]
Section = tuple[Symbols, NDArray[np.int64]]
"""Symbols of shape (n,) sorted by table, and how many of them each table codes, shape (tables,)."""

Categorical = constriction.stream.model.Categorical
AnsCoder = constriction.stream.stack.AnsCoder
BYTE = constriction.stream.model.Uniform(256)

VARINT_BYTES = 5
"""Most bytes of an escaped value: an overflow is below 2**33."""
SLACK_BITS_PER_SYMBOL = 0.01
"""More than the rounding of the coder's state can gain on one symbol (2**-8 of the state at most)."""


class EntropyCoder:
    """Codes sections of int32 symbols with a fixed list of tables. Any int32 can be coded.

    A file has one or more sections; all symbols of a section are decoded together, and the counts of a later
    section may depend on the symbols of an earlier one (as a hyperprior's do).
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self.minima = np.array([table.minimum for table in tables], dtype=np.int64)
        self.escapes = np.array([table.frequencies.size - 1 for table in tables], dtype=np.int64)
        self.models: list[Any] = [
            Categorical((table.frequencies - 1).astype(np.float64), perfect=False) for table in tables
        ]
        cheapest = [PRECISION_BITS - np.log2(table.frequencies.max()) for table in tables]
        self.least_bits = np.maximum(np.array(cheapest) - SLACK_BITS_PER_SYMBOL, 0.0)

    def encode(self, sections: Sequence[Section], header: bytes) -> bytes:
        """Bytes of all ``sections``, bound to ``header`` by the checksum."""
        checksum = zlib.crc32(header)
        for symbols, _ in sections:
            checksum = zlib.crc32(symbols.astype("<i4").tobytes(), checksum)
        stack = AnsCoder(np.array([checksum, 1], dtype=np.uint32))
        for symbols, counts in reversed(sections):
            self._push(stack, symbols.astype(np.int64), counts)
        words: NDArray[np.uint32] = stack.get_compressed()
        return words.astype("<u4").tobytes().rstrip(b"\0")

    def decoder(self, data: bytes, header: bytes) -> Decoder:
        """Start to decode what :meth:`encode` returned for the same ``header``."""
        return Decoder(self, data, header)

    def _push(self, stack: Any, symbols: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        escapes = np.repeat(self.escapes, counts)
        places = symbols - np.repeat(self.minima, counts)
        escaped = (places < 0) | (places >= escapes)
        if escaped.any():
            _push_overflows(stack, _overflow(places[escaped], escapes[escaped]))
            places = np.where(escaped, escapes, places)
        places = places.astype(np.int32)
        end = places.size
        for table in np.flatnonzero(counts)[::-1].tolist():
            start = end - int(counts[table])
            stack.encode_reverse(places[start:end], self.models[table])
            end = start


class Decoder:
    """Takes the sections out of one stream in the order in which they were given to the encoder."""

    def __init__(self, coder: EntropyCoder, data: bytes, header: bytes) -> None:
        if len(data) <= 4 or data[-1] == 0:
            raise FormatError(
                f"the coded latents are cut short or padded: {len(data)} bytes ending in {data[-1:].hex()}"
            )
        self.coder = coder
        self.bits = 8 * len(data)
        self.checksum = zlib.crc32(header)
        self.stack = AnsCoder(np.frombuffer(data + bytes(-len(data) % 4), dtype="<u4").astype(np.uint32))

    def take(self, counts: NDArray[np.int64]) -> Symbols:
        """The next section: int32 symbols of shape ``(sum(counts),)``, sorted by table.

        Raises :class:`FormatError`, before anything is allocated, when the stream is too short to hold so
        many.
        """
        coder, total = self.coder, int(counts.sum())
        if float(counts @ coder.least_bits) > self.bits:
            raise FormatError(f"{self.bits // 8} bytes of coded latents cannot hold {total} symbols")
        symbols = np.empty(total, dtype=np.int32)
        escaped: list[NDArray[np.int64]] = []
        start = 0
        # A photograph's sections have some hundred tables of few symbols: what is done for each counts.
        used = np.flatnonzero(counts)
        each = zip(used, counts[used], coder.minima[used], coder.escapes[used], strict=True)
        for table, count, minimum, escape in (map(int, row) for row in each):
            places = self.stack.decode(coder.models[table], count)
            if places.max() == escape:  # the last of the table's entries
                escaped.append(np.flatnonzero(places == escape) + start)
            # Of an escape, which may wrap around here, the symbol comes later.
            np.add(places, minimum, out=symbols[start : start + count])
            start += count
        if escaped:
            self._take_escaped(symbols, np.concatenate(escaped), counts)
        self.checksum = zlib.crc32(symbols.astype("<i4", copy=False).tobytes(), self.checksum)
        return symbols

    def _take_escaped(self, symbols: Symbols, escaped: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Put the symbols at the places ``escaped`` of a section that has been taken."""
        tables = np.searchsorted(np.cumsum(counts), escaped, side="right")
        values = _inside(_pop_overflows(self.stack, escaped.size), self.coder.escapes[tables])
        values += self.coder.minima[tables]
        if not ((values >= INT32.min) & (values <= INT32.max)).all():
            raise FormatError("the coded latents hold an escaped value that is no int32: damaged")
        symbols[escaped] = values

    def finish(self) -> None:
        """Check that nothing is left but the checksum; raises :class:`FormatError`."""
        left = self.stack.get_compressed()
        if left.size != 2 or int(left[0]) != self.checksum or int(left[1]) != 1:
            raise FormatError(
                "the checksum of the symbols does not match: the file is damaged, or another model coded it"
            )


def _overflow(places: NDArray[np.int64], escapes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Unsigned distance beyond the table: even above it, odd below it, so every integer means one value."""
    return np.where(places >= escapes, 2 * (places - escapes), -2 * places - 1)


def _inside(overflow: NDArray[np.int64], escapes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(overflow & 1, -(overflow + 1) // 2, escapes + overflow // 2)


def _push_overflows(stack: Any, overflow: NDArray[np.int64]) -> None:
    """LEB128 varints by byte plane: all first bytes, then the second bytes of those that have one."""
    planes = []
    while overflow.size:
        rest = overflow >> 7
        planes.append(((overflow & 127) | np.where(rest > 0, 128, 0)).astype(np.int32))
        overflow = rest[rest > 0]
    for plane in reversed(planes):
        stack.encode_reverse(plane, BYTE)


def _pop_overflows(stack: Any, count: int) -> NDArray[np.int64]:
    overflow = np.zeros(count, dtype=np.int64)
    open_ones = np.arange(count)
    for position in range(VARINT_BYTES):
        plane = stack.decode(BYTE, open_ones.size).astype(np.int64)
        if position and (plane == 0).any():
            raise FormatError("the coded latents hold an over-long escaped value: damaged")
        overflow[open_ones] |= (plane & 127) << (7 * position)
        open_ones = open_ones[plane >= 128]
        if not open_ones.size:
            return overflow
    raise FormatError(f"the coded latents hold an escaped value of more than {VARINT_BYTES} bytes: damaged")
