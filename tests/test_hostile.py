"""Every input is hostile: damaged, forged and random files end soon in one of our errors, never in pixels.

The counts of inputs tried are printed.
"""

from __future__ import annotations

import contextlib
import io
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import attar
import toy_bundle
from attar.codec import bundle, container, images
from attar.codec.container import Chunk
from attar.errors import AttarError, BundleError, FormatError, ImageError, ModelMissingError

V1 = Path(__file__).parent / "vectors" / "v1"
FILES = {path.stem: path.read_bytes() for path in sorted(V1.glob("*.attar"))}
CODECS = {path.stem: attar.load(path, threads=1) for path in sorted(V1.glob("*.attarmodel"))}
Say = Callable[[str], None]


def codec_of(name: str) -> attar.Codec:
    return CODECS["digits" if name.startswith("digit") else "photo"]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def out(text: str) -> None:
        with capsys.disabled():
            print(f"\n    {text}", end="")

    return out


def flips(data: bytes) -> Iterator[bytes]:
    for place in range(len(data)):
        for bit in range(8):
            yield data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_refused(name: str, say: Say) -> None:
    codec, data = codec_of(name), FILES[name]
    at = data.index(codec.bundle.short_id)
    count = 0
    for place, case in enumerate(flips(data)):
        # Another id is not damage that can be seen: it is the name of a model that is not there.
        in_id = at <= place // 8 < at + 4
        with pytest.raises((FormatError, ModelMissingError) if in_id else FormatError):
            codec.verify(case)
        count += 1
    assert count == 8 * len(data)
    say(f"{name}: {count} flipped bits")


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_refused(name: str, say: Say) -> None:
    codec, data = codec_of(name), FILES[name]
    for end in range(len(data)):
        with pytest.raises(FormatError):
            codec.verify(data[:end])
    say(f"{name}: {len(data)} truncations")


@pytest.mark.parametrize("name", FILES)
def test_every_trailing_byte_and_doubling_is_refused(name: str, say: Say) -> None:
    codec, data = codec_of(name), FILES[name]
    cases = [data + bytes([byte]) for byte in range(256)] + [data + data, data + bytes(1000), b"\0" + data]
    for case in cases:
        with pytest.raises(FormatError):
            codec.verify(case)
    say(f"{name}: {len(cases)} trailing bytes and more")


def test_cut_and_pasted_files_are_refused(say: Say) -> None:
    """The head of one good file and the tail of another."""
    generator = random.Random(5)
    good = set(FILES.values())
    tried = 0
    for _ in range(3000):
        name, other = generator.choice([*FILES]), generator.choice([*FILES])
        first, second = FILES[name], FILES[other]
        case = first[: generator.randrange(len(first))] + second[generator.randrange(len(second)) :]
        if case in good:
            continue
        with pytest.raises((FormatError, ModelMissingError)):
            codec_of(name).verify(case)
        tried += 1
    say(f"{tried} files pasted together")


def test_every_chunk_of_another_file_is_refused(say: Say) -> None:
    tried = 0
    for name, data in FILES.items():
        part = container.unpack(data)
        for other in map(container.unpack, FILES.values()):
            if other.header == part.header:
                continue
            forged = container.pack(part.header, {**part.chunks, Chunk.LATENTS: other.chunks[Chunk.LATENTS]})
            with pytest.raises(FormatError):
                codec_of(name).verify(forged)
            tried += 1
    say(f"{tried} files with the latents of another")


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_random_bytes(data: bytes) -> None:
    header = container.Header(1, 28, 28, CODECS["digits"].bundle.short_id)
    for prefix in (b"", container.MAGIC, container.write_header(header)):
        with pytest.raises(AttarError):
            CODECS["digits"].decompress(prefix + data)


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` after a few edits: bytes set, runs removed, doubled or inserted."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(out)))
        end = min(len(out), at + draw(st.integers(0, 12)))
        kind = draw(st.sampled_from(["set", "remove", "double", "insert"]))
        if kind == "set":
            out[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "remove":
            del out[at:end]
        elif kind == "double":
            out[at:at] = out[at:end]
        else:
            out[at:at] = draw(st.binary(max_size=12))
    return bytes(out)


@given(st.sampled_from([*FILES]).flatmap(lambda name: st.tuples(st.just(name), mutations(FILES[name]))))
@settings(max_examples=1000, deadline=None)
def test_edited_files_give_the_same_symbols_or_an_error(case: tuple[str, bytes]) -> None:
    name, data = case
    codec = codec_of(name)
    try:
        part = codec.unpack(data)
        symbols = codec.symbols(part)
        codec.verify(data)
    except (FormatError, ModelMissingError):
        return
    # What passes differs at most in chunks that may be left out: metadata.
    original = container.unpack(FILES[name])
    assert part.header == original.header
    assert np.array_equal(symbols, codec.symbols(original))


def resealed(data: bytes, change: Callable[[bytearray], None]) -> bytes:
    """A file whose chunks were changed by someone who can compute a CRC: what lies behind it protects."""
    part = container.unpack(data)
    out = {}
    for kind, body in part.chunks.items():
        forged = bytearray(body)
        if kind is not Chunk.LATENTS:
            change(forged)
        out[kind] = bytes(forged)
    return container.pack(part.header, out)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_forged_chunks_with_right_checksums(data: st.DataObject) -> None:
    def change(body: bytearray) -> None:
        body[:] = data.draw(mutations(bytes(body)))

    forged = resealed(FILES["photo-everything"], change)
    try:
        picture = CODECS["photo"].decode(forged)
    except FormatError:
        return
    assert picture.alpha is not None
    assert picture.alpha.shape == picture.pixels.shape[:2]
    assert np.array_equal(picture.pixels, CODECS["photo"].decode(FILES["photo-everything"]).pixels)


def headers_with_sizes() -> Iterator[tuple[bytes, str]]:
    sizes = ((3, 30_000_000, 30_000_000), (3, 2**31 - 1, 1), (1, 1, 2**28), (3, 16384, 16384))
    for channels, width, height in sizes:
        header = container.Header(channels, width, height, CODECS["photo"].bundle.short_id)
        for body in (b"", b"\x01", b"\1" * 40, b"\xff" * 4000):
            yield container.pack(header, {Chunk.LATENTS: body}), f"{width} x {height}"


def test_declared_sizes_cost_neither_memory_nor_time(say: Say) -> None:
    tried = 0
    for data, size in headers_with_sizes():
        tracemalloc.start()
        with pytest.raises(FormatError):
            CODECS["photo"].decompress(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20, size
        tried += 1
    say(f"{tried} huge declared sizes")


def test_inflation_bombs_are_cut_off() -> None:
    part = container.unpack(FILES["photo-everything"])
    for kind in (Chunk.ICC, Chunk.ALPHA):
        bomb = b"\0" * (kind is Chunk.ALPHA) + zlib.compress(bytes(1 << 26), 1)
        forged = container.pack(part.header, {**part.chunks, kind: bomb})
        tracemalloc.start()
        with pytest.raises(FormatError, match="longer than"):
            CODECS["photo"].decompress(forged)
        assert tracemalloc.get_traced_memory()[1] < 80 << 20
        tracemalloc.stop()


@given(mutations((V1 / "photo.attarmodel").read_bytes()))
@settings(max_examples=500, deadline=None)
def test_edited_bundles_are_refused_or_have_another_id(data: bytes) -> None:
    try:
        found = bundle.from_bytes(data, source="edited.attarmodel")
        _ = found.tables
    except BundleError as error:
        message = str(error)
    else:
        message = "edited.attarmodel: another file"
        assert found.sha256 != CODECS["photo"].bundle.sha256 or data == (V1 / "photo.attarmodel").read_bytes()
    assert message.startswith("edited.attarmodel: ")


@given(mutations(toy_bundle.photo_graphs()["synthesis"]))
@settings(max_examples=150, deadline=None)
def test_edited_networks_give_an_error_or_pixels(network: bytes) -> None:
    original = CODECS["photo"].bundle
    graphs = {**original.graphs, "synthesis": network}
    edited = bundle.Bundle(original.manifest, graphs, original.sha256, "edited", original.table_bytes)
    with contextlib.suppress(BundleError, FormatError):
        assert attar.Codec(edited).decompress(FILES["photo"]).shape == (45, 70, 3)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(toy_bundle.photo(12, 16)).save(buffer, kind)
    return buffer.getvalue()


IMAGES = {kind: encoded(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "PPM")}


@given(st.sampled_from([*IMAGES]).flatmap(lambda kind: mutations(IMAGES[kind])))
@settings(max_examples=500, deadline=None)
def test_edited_images_are_pixels_or_an_error(data: bytes) -> None:
    try:
        picture = images.read(data, convert=True, max_pixels=1 << 20)
    except ImageError as error:
        message = str(error)
    else:
        message = "image: read"
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.ndim == 3
    assert message.startswith("image: ")


def test_the_checks_of_this_file_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: a decoder that forgets the checksum is caught by the first of these tests."""
    from attar.codec.entropy import Decoder

    monkeypatch.setattr(Decoder, "finish", lambda self: None)
    survivors = 0
    for case in flips(FILES["digit-0"]):
        try:
            CODECS["digits"].verify(case)
            survivors += 1
        except (FormatError, ModelMissingError):
            pass
    assert survivors > 100
