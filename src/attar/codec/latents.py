"""Latents <-> the body of their chunk: tiles, each one stream of the entropy coder with its own checksum.

A large latent is cut into tiles that are coded independently, so that a region can be decoded alone and a
declared size allocates no more than its bytes justify.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.codec.bits import Tally
from attar.codec.container import Reader, write_varint
from attar.codec.entropy import EntropyCoder
from attar.codec.manifest import Manifest
from attar.codec.tables import Table
from attar.codec.tiling import Area, Plane, Tiled, everything
from attar.errors import FormatError

__all__ = [
    "TILE",
    "LatentCoder",
    "OpenLatent",
    "Tile",
    "join_streams",
    "split_streams",
    "tile_context",
    "tile_count",
    "tile_side",
    "tiles",
]

TILE = 1024
"""Side of a tile in pixels: a few bytes each, which is nothing for 2**20 pixels."""
LEAST_TILE_BYTES = 6
"""A stream has at least five bytes, its length one."""

Tile = tuple[slice, ...]
Symbols = NDArray[np.int32]


class LatentCoder:
    """Codes latents of shape (..., L) with one table for each channel: the factorized prior."""

    def __init__(self, manifest: Manifest, tables: Sequence[Table]) -> None:
        self.stride = manifest.latent.stride
        self.coder = EntropyCoder(tables)

    def encode(self, symbols: Symbols, header: bytes, out: Symbols | None = None) -> bytes:
        """Body of the chunk for int32 symbols of shape (..., L), bound to ``header`` by its checksums.

        ``out``, of the symbols' shape, is given what :meth:`decode` will give: the same.
        """
        if out is not None:
            out[...] = symbols
        areas = tiles(symbols.shape, self.stride)
        return join_streams([self._encode_tile(symbols[area], header, k) for k, area in enumerate(areas)])

    def encode_plane(self, symbols: Plane, header: bytes) -> bytes:
        """:meth:`encode` of symbols that are read tile by tile, row by row."""
        areas = everything(symbols.shape).tiles(tile_side(self.stride or 1))
        return join_streams(
            [self._encode_tile(symbols.read(area), header, number) for number, area in enumerate(areas)]
        )

    def decode(self, body: bytes, header: bytes, shape: tuple[int, ...]) -> Symbols:
        """Symbols of ``shape``, checked; raises :class:`FormatError`."""
        streams = split_streams(body, tile_count(shape, self.stride))
        symbols = np.empty(shape, dtype=np.int32)
        for number, (tile, stream) in enumerate(zip(tiles(shape, self.stride), streams, strict=True)):
            symbols[tile] = self._decode_tile(stream, header, number, symbols[tile].shape)
        return symbols

    def opened(
        self, body: bytes, header: bytes, shape: tuple[int, ...], tally: Tally | None = None
    ) -> OpenLatent:
        """The symbols (h, w, L) of a latent with a stride, each tile decoded and checked when it is read.

        ``tally`` counts what they cost.
        """
        streams = split_streams(body, tile_count(shape, self.stride))
        numbers = {
            area: number for number, area in enumerate(everything(shape).tiles(tile_side(self.stride or 1)))
        }

        def decoded(area: Area) -> Symbols:
            number = numbers[area]
            symbols = self._decode_tile(streams[number], header, number, (*area.size, shape[-1]))
            if tally:
                tally.add_factorized(symbols, area)
            return symbols

        return OpenLatent(Tiled(shape, np.int32, tile_side(self.stride or 1), decoded))

    def _encode_tile(self, symbols: Symbols, header: bytes, number: int) -> bytes:
        channels = symbols.shape[-1]
        by_channel = symbols.reshape(-1, channels).T  # (L, positions)
        counts = np.full(channels, by_channel.shape[1], dtype=np.int64)
        return self.coder.encode([(by_channel.ravel(), counts)], tile_context(header, number))

    def _decode_tile(self, stream: bytes, header: bytes, number: int, shape: tuple[int, ...]) -> Symbols:
        channels = shape[-1]
        decoder = self.coder.decoder(stream, tile_context(header, number))
        coded = decoder.take(np.full(channels, math.prod(shape[:-1]), dtype=np.int64))
        decoder.finish()
        return coded.reshape(channels, -1).T.reshape(shape)


class OpenLatent:
    """A latent (h, w, L) that is decoded while it is read."""

    def __init__(self, plane: Tiled) -> None:
        self.plane, self.shape = plane, plane.shape

    def read(self, area: Area) -> NDArray[Any]:
        """The latent of an area; raises :class:`FormatError` where it is damaged."""
        return self.plane.read(area)

    def tiles(self, area: Area) -> Iterator[Area]:
        """The tiles, each coded for itself, that have positions of an area, row by row."""
        return self.plane.tiles(area)

    def sources(self, area: Area) -> Area:
        """The positions whose symbols the latent of an area comes from: here the same."""
        return area

    def forget(self, row: int, read: int) -> None:
        """No row above ``row`` will be read again; all above ``read`` have been read (of all columns to come)."""
        del read
        self.plane.forget(row)

    def close(self) -> None:
        """Nothing will be read again."""
        self.plane.kept.clear()


def tile_side(stride: int) -> int:
    """Positions of a tile each way, for ``stride`` pixels per position."""
    return max(1, TILE // stride)


def tile_count(shape: tuple[int, ...], stride: int | None) -> int:
    """Number of tiles of a latent of ``shape`` with ``stride`` pixels per position; one without a stride."""
    if stride is None:
        return 1
    side = tile_side(stride)
    return -(-shape[0] // side) * -(-shape[1] // side)


def tiles(shape: tuple[int, ...], stride: int | None) -> Iterator[Tile]:
    """Index of each tile in a latent of ``shape``, row by row; a latent of fixed shape is one tile."""
    if stride is None:
        yield tuple(slice(0, size) for size in shape[:-1])
        return
    side = tile_side(stride)
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            yield slice(top, top + side), slice(left, left + side)


def tile_context(header: bytes, tile: int) -> bytes:
    """What the checksum of a tile covers before its symbols."""
    return header + tile.to_bytes(4, "little")


def join_streams(streams: Sequence[bytes]) -> bytes:
    """The only stream as it is, or several, each after its length."""
    if len(streams) == 1:
        return streams[0]
    return b"".join(write_varint(len(stream)) + stream for stream in streams)


def split_streams(body: bytes, count: int) -> list[bytes]:
    """The streams of ``count`` tiles; raises :class:`FormatError`."""
    if count == 1:
        return [body]
    if count * LEAST_TILE_BYTES > len(body):
        raise FormatError(f"{len(body)} bytes of latents cannot hold {count} tiles")
    reader = Reader(body)
    streams = [reader.take(reader.varint("length of a tile"), "latents of a tile") for _ in range(count)]
    if reader.position != len(body):
        raise FormatError(f"{len(body) - reader.position} bytes follow the last of {count} tiles")
    return streams
