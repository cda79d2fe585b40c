"""Coverage-guided fuzzing of everything that reads untrusted bytes.

    pip install atheris
    python fuzz/fuzz_codec.py file|stream|chunks|bundle|onnx|image [CORPUS] [-max_total_time=600] [-max_len=65536]

Each target calls one reader. Anything but pixels or one of attar's errors is a finding: libFuzzer writes the
input to crash-*; what it found becomes a test case in tests/test_hostile.py.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["attar"]):
    import numpy as np

    from attar.codec import bundle, chunks, codec, container, images
    from attar.codec.container import Chunk
    from attar.codec.onnxfile import check_self_contained, read_graph
    from attar.codec.reach import UnboundedError, reach_of
    from attar.codec.split import split
    from attar.errors import BundleError, FormatError, ImageError, ModelMissingError

VECTORS = Path(__file__).parents[1] / "tests" / "vectors" / "v1"
CODECS = [codec.load(path, threads=1) for path in sorted(VECTORS.glob("*.attarmodel"))]
MAX_PIXELS = 1 << 16


def file(data: bytes) -> None:
    """A whole ``.attar`` file; the first byte chooses the model."""
    chosen = CODECS[data[0] % len(CODECS)] if data else CODECS[0]
    with suppress(FormatError, ModelMissingError):
        chosen.decode(data[1:], max_pixels=MAX_PIXELS)


def stream(data: bytes) -> None:
    """One entropy-coded stream, without the checksum that would stop nearly every input."""
    coder = CODECS[0].latents.coder
    counts = np.full(50, data[0] if data else 1)
    with suppress(FormatError):
        decoder = coder.decoder(data[1:], b"")
        decoder.take(counts)
        decoder.take(counts)
        decoder.finish()


def chunk_bodies(data: bytes) -> None:
    """Alpha, metadata and tiles."""
    for read in (
        lambda: chunks.unpack_alpha(data, 20, 30),
        lambda: chunks.unpack_metadata(data, Chunk.ICC),
        lambda: CODECS[1].latents.decode(data, b"", (3, 300, 30)),
        lambda: container.unpack(data),
        lambda: container.unpack(container.MAGIC + data),
    ):
        with suppress(FormatError):
            read()


def bundle_file(data: bytes) -> None:
    """A whole bundle."""
    with suppress(BundleError):
        _ = bundle.from_bytes(data, source="fuzz").tables


def onnx_file(data: bytes) -> None:
    """The look into an ONNX file, how far it sees, and its halves."""
    with suppress(BundleError):
        check_self_contained(data, "fuzz")
        with suppress(UnboundedError):
            reach_of(read_graph(data, "fuzz"), 16)
    split(data, "quality")


def image_file(data: bytes) -> None:
    """An image file, through Pillow's readers."""
    with suppress(ImageError):
        images.read(data, convert=True, max_pixels=MAX_PIXELS)


TARGETS = {
    "file": file,
    "stream": stream,
    "chunks": chunk_bodies,
    "bundle": bundle_file,
    "onnx": onnx_file,
    "image": image_file,
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: fuzz_codec.py {'|'.join(TARGETS)} [corpus folder] [libFuzzer options]")
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
