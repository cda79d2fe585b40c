"""Bodies of the chunks beside the latents: alpha without loss, and metadata; both as zlib streams."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from attar.codec.container import Chunk
from attar.errors import FormatError

__all__ = ["MAX_METADATA_BYTES", "pack_alpha", "pack_metadata", "unpack_alpha", "unpack_metadata"]

MAX_METADATA_BYTES = 1 << 24
"""Most bytes of one metadata block, before compression."""

PREDICTIONS: dict[int, tuple[int, ...]] = {0: (), 1: (1,), 2: (0,), 3: (0, 1)}
"""Method byte -> axes along which neighbours are subtracted: none, left, above, both."""

Plane = NDArray[np.uint8]


def pack_alpha(alpha: Plane) -> bytes:
    """Method byte and zlib stream of uint8 (H, W), with the prediction that comes out smallest."""
    return min(
        (bytes([method]) + zlib.compress(_predict(alpha, method), 9) for method in PREDICTIONS), key=len
    )


def unpack_alpha(body: bytes, height: int, width: int) -> Plane:
    """Inverse of :func:`pack_alpha`; raises :class:`FormatError` unless there are height x width values."""
    if not body or body[0] not in PREDICTIONS:
        raise FormatError(
            f"the alpha chunk has prediction {body[:1].hex() or 'none'}; 0 to {len(PREDICTIONS) - 1} expected"
        )
    raw = _inflate(body[1:], height * width, "alpha chunk")
    if len(raw) != height * width:
        raise FormatError(f"the alpha chunk holds {len(raw)} pixels; {height * width} expected")
    plane = np.frombuffer(raw, np.uint8).reshape(height, width)
    for axis in PREDICTIONS[body[0]]:
        plane = np.cumsum(plane, axis=axis, dtype=np.uint8)
    return plane


def pack_metadata(body: bytes, kind: Chunk) -> bytes:
    """Compressed metadata block; raises :class:`FormatError` when it is larger than a file may hold."""
    if len(body) > MAX_METADATA_BYTES:
        raise FormatError(
            f"{kind.name} has {len(body)} bytes, at most {MAX_METADATA_BYTES} are kept: strip the metadata "
            "(--strip)"
        )
    return zlib.compress(body, 9)


def unpack_metadata(body: bytes, kind: Chunk) -> bytes:
    """Inverse of :func:`pack_metadata`; never gives more than :data:`MAX_METADATA_BYTES`."""
    return _inflate(body, MAX_METADATA_BYTES, f"{kind.name} chunk")


def _predict(plane: Plane, method: int) -> bytes:
    for axis in PREDICTIONS[method]:
        plane = np.diff(plane, axis=axis, prepend=np.uint8(0))
    return np.ascontiguousarray(plane).tobytes()


def _inflate(stream: bytes, most: int, what: str) -> bytes:
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(stream, most)
        # At exactly `most` bytes the end of the stream may not have been read yet.
        tail = b"" if inflater.eof else inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error as error:
        raise FormatError(f"the {what} is no zlib stream: {error}") from error
    if tail or not inflater.eof or inflater.unused_data:
        raise FormatError(f"the {what} is longer than {most} bytes, cut short, or followed by something")
    return raw
