"""Latents <-> the body of their chunk: tiles, each one stream of the entropy coder with its own checksum.

A large latent is cut into tiles that are coded independently, so that a region can be decoded alone and a
declared size allocates no more than its bytes justify.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from attar.codec.container import Reader, write_varint
from attar.codec.entropy import EntropyCoder
from attar.codec.manifest import Manifest
from attar.codec.tables import Table
from attar.errors import FormatError

__all__ = [
    "TILE",
    "LatentCoder",
    "Tile",
    "join_streams",
    "split_streams",
    "tile_context",
    "tile_count",
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

    def encode(self, symbols: Symbols, header: bytes) -> bytes:
        """Body of the chunk for int32 symbols of shape (..., L), bound to ``header`` by its checksums."""
        channels = symbols.shape[-1]
        streams = []
        for number, tile in enumerate(tiles(symbols.shape, self.stride)):
            by_channel = symbols[tile].reshape(-1, channels).T  # (L, positions)
            counts = np.full(channels, by_channel.shape[1], dtype=np.int64)
            streams.append(self.coder.encode([(by_channel.ravel(), counts)], tile_context(header, number)))
        return join_streams(streams)

    def decode(self, body: bytes, header: bytes, shape: tuple[int, ...]) -> Symbols:
        """Symbols of ``shape``, checked; raises :class:`FormatError`."""
        channels = shape[-1]
        streams = split_streams(body, tile_count(shape, self.stride))
        symbols = np.empty(shape, dtype=np.int32)
        for number, (tile, stream) in enumerate(zip(tiles(shape, self.stride), streams, strict=True)):
            target = symbols[tile]
            decoder = self.coder.decoder(stream, tile_context(header, number))
            coded = decoder.take(np.full(channels, target.size // channels, dtype=np.int64))
            decoder.finish()
            target[...] = coded.reshape(channels, -1).T.reshape(target.shape)
        return symbols


def tile_count(shape: tuple[int, ...], stride: int | None) -> int:
    """Number of tiles of a latent of ``shape`` with ``stride`` pixels per position; one without a stride."""
    if stride is None:
        return 1
    side = max(1, TILE // stride)
    return -(-shape[0] // side) * -(-shape[1] // side)


def tiles(shape: tuple[int, ...], stride: int | None) -> Iterator[Tile]:
    """Index of each tile in a latent of ``shape``, row by row; a latent of fixed shape is one tile."""
    if stride is None:
        yield tuple(slice(0, size) for size in shape[:-1])
        return
    side = max(1, TILE // stride)
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
