from __future__ import annotations

import zlib

import numpy as np
import pytest

from attar.codec import chunks
from attar.codec.container import Chunk
from attar.errors import FormatError

Y, X = np.mgrid[:30, :40]
PLANES = {
    "noise": np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8),
    "opaque": np.full((30, 40), 255, np.uint8),
    "columns": np.random.default_rng(1).integers(0, 256, (1, 40), dtype=np.uint8).repeat(30, 0),
    "walks": np.cumsum(
        np.random.default_rng(1).integers(0, 256, (30, 40)) % np.where(X, 2, 256), axis=1
    ).astype(np.uint8),
    "slope": (3 * X + 5 * Y).astype(np.uint8),
    "one": np.array([[7]], np.uint8),
}


@pytest.mark.parametrize("name", PLANES)
def test_alpha_comes_back_exactly(name: str) -> None:
    plane = PLANES[name]
    body = chunks.pack_alpha(plane)
    assert np.array_equal(chunks.unpack_alpha(body, *plane.shape), plane)
    assert len(body) <= plane.size + 20


@pytest.mark.parametrize(("name", "method"), [("columns", 2), ("walks", 1), ("slope", 3)])
def test_the_prediction_that_fits_is_chosen(name: str, method: int) -> None:
    body = chunks.pack_alpha(PLANES[name])
    assert body[0] == method
    assert len(body) < 0.3 * PLANES[name].size


@pytest.mark.parametrize("method", range(4))
def test_every_prediction_is_undone(method: int) -> None:
    for plane in PLANES.values():
        body = bytes([method]) + zlib.compress(chunks._predict(plane, method))
        assert np.array_equal(chunks.unpack_alpha(body, *plane.shape), plane)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "prediction none; 0 to 3 expected"),
        (b"\x04" + zlib.compress(bytes(6)), "prediction 04"),
        (b"\0", "longer than 6 bytes, cut short"),
        (b"\0garbage", "no zlib stream"),
        (b"\0" + zlib.compress(bytes(5)), "holds 5 pixels; 6 expected"),
        (b"\0" + zlib.compress(bytes(7)), "longer than 6 bytes"),
        (b"\0" + zlib.compress(bytes(6)) + b"x", "followed by something"),
        (b"\0" + zlib.compress(bytes(6))[:-1], "cut short"),
        (b"\0" + zlib.compress(bytes(50 << 20)), "longer than 6 bytes"),
    ],
)
def test_forged_alpha_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        chunks.unpack_alpha(body, 2, 3)


def test_metadata_comes_back_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for body in (b"x", b"profile" * 1000, bytes(range(256))):
        assert chunks.unpack_metadata(chunks.pack_metadata(body, Chunk.ICC), Chunk.ICC) == body
    monkeypatch.setattr(chunks, "MAX_METADATA_BYTES", 100)
    assert chunks.unpack_metadata(zlib.compress(bytes(100)), Chunk.XMP) == bytes(100)
    with pytest.raises(FormatError, match="XMP chunk is longer than 100 bytes"):
        chunks.unpack_metadata(zlib.compress(bytes(101)), Chunk.XMP)
    with pytest.raises(FormatError, match=r"EXIF has 101 bytes, at most 100 are kept: strip the metadata"):
        chunks.pack_metadata(bytes(101), Chunk.EXIF)
