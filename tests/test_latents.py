from __future__ import annotations

import numpy as np
import pytest

import toy_bundle
from attar.codec.bundle import Latent
from attar.codec.latents import LatentCoder, tiles
from attar.errors import FormatError
from toy_bundle import laplacian_table

HEADER = b"header"


def coder(stride: int, channels: int = 2) -> LatentCoder:
    manifest = toy_bundle.photo_manifest(multiple=stride, latent=Latent(channels, stride=stride))
    return LatentCoder(manifest, [laplacian_table(1.0 + position) for position in range(channels)])


def symbols(*shape: int) -> np.ndarray:
    return np.rint(np.random.default_rng(0).laplace(0, 1, shape)).astype(np.int32)


@pytest.mark.parametrize(
    ("stride", "shape"), [(8, (128, 128, 2)), (8, (1, 1, 2)), (512, (2, 2, 2)), (16, (64, 3, 2))]
)
def test_what_fits_one_tile_is_one_stream(stride: int, shape: tuple) -> None:
    latent = symbols(*shape)
    body = coder(stride).encode(latent, HEADER)
    assert np.array_equal(coder(stride).decode(body, HEADER, shape), latent)
    by_channel = latent.reshape(-1, 2).T
    stream = coder(stride).coder.encode(
        [(by_channel.ravel(), np.full(2, by_channel.shape[1]))], HEADER + bytes(4)
    )
    assert body == stream


@pytest.mark.parametrize(
    ("stride", "shape", "count"),
    [
        (8, (129, 128, 2), 2),
        (8, (128, 300, 2), 3),
        (512, (5, 3, 2), 6),
        (1024, (3, 2, 2), 6),
        (100, (11, 10, 2), 2),
    ],
)
def test_larger_latents_are_tiled(stride: int, shape: tuple, count: int) -> None:
    latent = symbols(*shape)
    body = coder(stride).encode(latent, HEADER)
    assert len(list(tiles(shape, stride))) == count
    assert np.array_equal(coder(stride).decode(body, HEADER, shape), latent)


def test_tiles_cannot_change_places_go_missing_or_grow() -> None:
    codec, shape = coder(512), (4, 2, 2)
    latent = np.tile(symbols(2, 2, 2), (2, 1, 1))
    body = codec.encode(latent, HEADER)
    first, second = body[1 : 1 + body[0]], body[2 + body[0] :]
    swapped = bytes([len(second)]) + second + bytes([len(first)]) + first
    for forged in (swapped, body[: 1 + body[0]], body + b"\0", body + b"\x05hello", body[:-1], b""):
        with pytest.raises(FormatError):
            codec.decode(forged, HEADER, shape)
    with pytest.raises(FormatError, match="checksum of the symbols"):
        codec.decode(swapped, HEADER, shape)
    with pytest.raises(FormatError, match="1 bytes follow the last of 2 tiles"):
        codec.decode(body + b"\0", HEADER, shape)


def test_many_declared_tiles_are_refused_at_once() -> None:
    with pytest.raises(FormatError, match="40 bytes of latents cannot hold 1000000 tiles"):
        coder(1024).decode(bytes(40), HEADER, (1000, 1000, 2))
