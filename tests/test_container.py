from __future__ import annotations

import zlib
from dataclasses import replace

import pytest

from attar.codec import container
from attar.codec.container import Chunk, Header
from attar.errors import FormatError

HEADER = Header(channels=1, width=28, height=300, model=b"\x01\x02\x03\x04", quality=7)
LATENTS = {Chunk.LATENTS: b"latents"}


def chunk(kind: int, body: bytes, header: Header = HEADER) -> bytes:
    crc = zlib.crc32(container.write_header(header) + bytes([kind]) + body).to_bytes(4, "little")
    return bytes([kind, len(body) + 4]) + body + crc


def test_the_bytes_are_those_of_the_format_page() -> None:
    data = container.pack(HEADER, LATENTS)
    assert data == bytes.fromhex("d7410d0a 11 1c ac02 01020304 07 7f 07") + b"latents"
    part = container.unpack(data)
    assert part.header == HEADER
    assert part.header_bytes == data[:13]
    assert part.chunks == LATENTS


def test_chunks_are_sorted_checked_and_returned_without_checksums() -> None:
    header = replace(HEADER, channels=4)
    chunks = {
        Chunk.LATENTS: b"l",
        Chunk.ALPHA: b"alpha",
        Chunk.XMP: b"",
        Chunk.ICC: b"profile",
        Chunk.EXIF: b"e",
    }
    part = container.unpack(container.pack(header, chunks))
    assert part.chunks == chunks
    assert list(part.chunks) == [Chunk.ICC, Chunk.EXIF, Chunk.XMP, Chunk.ALPHA, Chunk.LATENTS]


def test_header_alone_needs_only_the_first_bytes() -> None:
    data = container.pack(HEADER, {Chunk.LATENTS: bytes(1000)})
    assert container.read_header(data[:20]) == HEADER


def test_an_unknown_ancillary_chunk_is_skipped_and_an_unknown_critical_one_refused() -> None:
    start, latents = container.write_header(HEADER), b"\x7f\x01l"
    part = container.unpack(start + chunk(0x90, b"news") + latents)
    assert part.skipped == (0x90,)
    assert part.chunks == {Chunk.LATENTS: b"l"}
    with pytest.raises(FormatError, match="chunk 0x10 is unknown and needed"):
        container.unpack(start + chunk(0x10, b"news") + latents)
    damaged = bytearray(chunk(0x90, b"news"))
    damaged[3] ^= 1
    with pytest.raises(FormatError, match="checksum of chunk 0x90"):
        container.unpack(start + bytes(damaged) + latents)


def test_a_chunk_of_another_file_is_refused() -> None:
    other = replace(HEADER, width=29)
    with pytest.raises(FormatError, match="taken from another file"):
        container.unpack(container.write_header(HEADER) + chunk(0x82, b"exif", other) + b"\x7f\x01l")


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (b"", "ends before its latents"),
        (b"\x7f", "ends inside the length of a chunk"),
        (b"\x7f\x02l", "ends inside the chunk 0x7f: 2 bytes expected, 1 left"),
        (b"\x7f\x01l\x7f\x01l", "chunk 0x7f is out of order or there twice"),
        (b"\x7f\x01l" + chunk(0x82, b""), "chunk 0x82 is out of order"),
        (chunk(0x83, b"") + chunk(0x82, b"") + b"\x7f\x01l", "chunk 0x82 is out of order"),
        (b"\x82\x02ab\x7f\x01l", "checksum of chunk 0x82"),
        (chunk(0x20, b"alpha") + b"\x7f\x01l", "says gray, and the alpha chunk is there"),
        (b"\x7f\x81\x00l", "not a canonical varint"),
        (b"\x7f\xff\xff\xff\xff\x7f", "34359738367 bytes expected, 0 left"),
        (b"\x7f\xff\xff\xff\xff\xff\x01", "not a canonical varint"),
    ],
)
def test_malformed_chunks_are_refused(tail: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        container.unpack(container.write_header(HEADER) + tail)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("", "the file is empty"),
        ("89504e470d0a1a0a", "not an .attar file: it starts with 89 50 4e 47"),
        ("d7410a11", "damaged, perhaps by a transfer in text mode"),
        ("57410d0a11", "damaged, perhaps by a transfer in text mode"),
        ("d7410d0a", "ends inside the version"),
        ("d7410d0a12", "format version 2; this program reads version 1"),
        ("d7410d0a01 1c1c 01020304 00", "channels 0; 1 to 4 expected"),
        ("d7410d0a51 1c1c 01020304 00", "channels 5; 1 to 4 expected"),
        ("d7410d0a11 001c 01020304 00", "width 0"),
        ("d7410d0a11 1c00 01020304 00", "height 0"),
        ("d7410d0a11 ffffffff0f 01 01020304 00", "width 4294967295"),
        ("d7410d0a11 80001c 01020304 00", "width at byte 6 is not a canonical varint"),
        ("d7410d0a11 1c1c 01020304 65", "quality 101; 0 to 100 expected"),
        ("d7410d0a11 1c1c 0102", "ends inside the model id"),
        ("d7410d0a31 ffffffff07 ffffffff07 01020304 00", "4611686014132420609 pixels; at most 268435456"),
    ],
)
def test_malformed_headers_are_refused(start: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        container.unpack(bytes.fromhex(start))


def test_the_cap_on_pixels_can_be_set() -> None:
    data = container.pack(HEADER, LATENTS)
    assert container.unpack(data, max_pixels=28 * 300).header == HEADER
    with pytest.raises(FormatError, match=r"28 x 300 = 8400 pixels; at most 8399"):
        container.unpack(data, max_pixels=28 * 300 - 1)


@pytest.mark.parametrize(
    ("changes", "chunks", "message"),
    [
        ({"channels": 7}, LATENTS, "channels 7"),
        ({"model": b"abc"}, LATENTS, "four bytes expected"),
        ({"width": 0}, LATENTS, "width 0"),
        ({"width": 2**31}, LATENTS, "width 2147483648"),
        ({"quality": 101}, LATENTS, "quality 101"),
        ({}, {}, "a file has latents"),
        ({"channels": 2}, LATENTS, "an alpha chunk exactly when"),
        ({}, {**LATENTS, Chunk.ALPHA: b""}, "an alpha chunk exactly when"),
    ],
)
def test_what_could_not_be_read_is_not_written(changes: dict, chunks: dict, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        container.pack(replace(HEADER, **changes), chunks)
