"""Makes the frozen files of tests/vectors/v1. Refuses to touch them once they are there.

A vector is NAME.attar and NAME.npz: the image that was compressed, symbols, pixels, alpha and metadata.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from pathlib import Path

import numpy as np

import attar
import toy_bundle
from attar.codec import container
from attar.codec.container import Chunk
from attar.codec.images import Picture, from_array

V1 = Path(__file__).parent / "vectors" / "v1"


def pictures() -> dict[str, tuple[str, Picture]]:
    """Name of a vector -> its model and image."""
    rng = np.random.default_rng(20)
    alpha = np.minimum(255, 6 * np.arange(70)[None, :] + 3 * np.arange(45)[:, None]).astype(np.uint8)
    full = Picture(
        toy_bundle.photo(),
        alpha,
        icc=b"an ICC profile " * 5,
        exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0",
        xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>",
    )
    return {
        "digit-0": ("digits", from_array(toy_bundle.digit(0))),
        "digit-1": ("digits", from_array(toy_bundle.digit(1))),
        "digit-alpha": ("digits", Picture(toy_bundle.digit(2)[..., None], toy_bundle.digit(3))),
        "digit-escapes": ("digits", from_array(255 * rng.integers(0, 2, (28, 28), dtype=np.uint8))),
        "photo": ("photo", from_array(toy_bundle.photo())),
        "photo-gray": ("photo", from_array(toy_bundle.photo(33, 17)[..., 0])),
        "photo-everything": ("photo", full),
        "photo-one-pixel": ("photo", from_array(toy_bundle.photo(1, 1))),
        "photo-escapes": ("photo", from_array(255 * rng.integers(0, 2, (20, 24, 3), dtype=np.uint8))),
        "photo-tiles": ("photo", from_array(toy_bundle.photo(7, 1030))),
        "photo-unknown-chunk": ("photo", Picture(toy_bundle.photo(16, 16), icc=b"profile")),
    }


def with_unknown_chunk(data: bytes) -> bytes:
    """The file with an ancillary chunk of a later version after its first chunk."""
    part = container.unpack(data)
    start, body = part.header_bytes, b"of a later version"
    crc = zlib.crc32(start + b"\x95" + body).to_bytes(4, "little")
    at = len(start) + 2 + data[len(start) + 1]
    return data[:at] + b"\x95" + bytes([len(body) + 4]) + body + crc + data[at:]


def main() -> None:
    if V1.exists():
        sys.exit(f"{V1} exists: vectors are frozen; a change of the format needs a new version")
    V1.mkdir(parents=True)
    toy_bundle.write_digits(V1 / "digits.attarmodel")
    toy_bundle.write_photo(V1 / "photo.attarmodel")
    index = {}
    for name, (model, picture) in pictures().items():
        codec = attar.load(V1 / f"{model}.attarmodel", threads=1)
        data = codec.compress(picture)
        if name.endswith("unknown-chunk"):
            data = with_unknown_chunk(data)
        decoded = codec.decode(data)
        arrays = {
            "image": picture.to_array(),
            "symbols": codec.symbols(codec.unpack(data)),
            "pixels": decoded.pixels,
        }
        if picture.alpha is not None:
            arrays["alpha"] = picture.alpha
        for kind in (Chunk.ICC, Chunk.EXIF, Chunk.XMP):
            body = getattr(picture, kind.name.lower())
            if body:
                arrays[kind.name.lower()] = np.frombuffer(body, np.uint8)
        (V1 / f"{name}.attar").write_bytes(data)
        np.savez_compressed(V1 / f"{name}.npz", **arrays)
        index[name] = {"model": model}
    files = sorted(path for path in V1.iterdir())
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (V1 / "index.json").write_text(json.dumps({"vectors": index, "sha256": digests}, indent=1) + "\n")


if __name__ == "__main__":
    main()
