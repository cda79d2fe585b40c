"""The ``.attar`` file: header and chunks <-> bytes, as docs/FORMAT.md describes them.

One list of fields drives writer and reader. Every byte is accounted for: the header and the symbols by the
checksum inside the latents, every other chunk by its own. Knows nothing of pixels and models.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from attar.errors import FormatError

__all__ = [
    "MAGIC",
    "MAX_PIXELS",
    "VERSION",
    "Chunk",
    "Container",
    "Header",
    "Reader",
    "pack",
    "read_header",
    "unpack",
    "write_header",
    "write_varint",
]

MAGIC = b"\xd7A\r\n"
"""Not ASCII, so that no text is taken for it; CR LF, so that a transfer in text mode breaks it at once."""
VERSION = 1
MAX_PIXELS = 1 << 28
"""Default cap on width x height, checked before anything is allocated."""
ANY_SIZE = 1 << 64
"""Pixels: for what is too large to have been taken before."""
MAX_SIDE = (1 << 31) - 1
LAYOUTS = {1: "gray", 2: "gray and alpha", 3: "RGB", 4: "RGB and alpha"}
"""Channels of the image that was given to the encoder, alpha included."""
ANCILLARY = 0x80
CHECKSUM_BYTES = 4


class Chunk(IntEnum):
    """Types of chunks. Bit 7: ancillary, may be skipped. The low seven bits ascend through a file."""

    ICC = 0x81
    EXIF = 0x82
    XMP = 0x83
    ALPHA = 0x20
    LATENTS = 0x7F


@dataclass(frozen=True)
class Header:
    """What stands before the chunks.

    ``channels``: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha. ``model``: the first four bytes of the
    SHA-256 of the bundle. ``quality``: 1..100, or 0 when the bundle has a single rate.
    """

    channels: int
    width: int
    height: int
    model: bytes
    quality: int = 0

    @property
    def has_alpha(self) -> bool:
        """Whether the file must have an alpha chunk."""
        return self.channels in (2, 4)


@dataclass(frozen=True)
class Container:
    """A file taken apart: bodies of its ``chunks`` without checksums, unknown ancillary types ``skipped``."""

    header: Header
    header_bytes: bytes
    chunks: Mapping[Chunk, bytes]
    skipped: tuple[int, ...] = field(default=())


KNOWN = frozenset(Chunk)


class Reader:
    """A cursor that refuses to run past the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int, what: str) -> bytes:
        """The next ``count`` bytes, which are ``what``."""
        left = len(self.data) - self.position
        if count > left:
            raise FormatError(f"the file ends inside the {what}: {count} bytes expected, {left} left")
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self, what: str) -> int:
        """LEB128 without over-long forms, at most five bytes."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1, what)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if shift and byte == 0:
                    break
                return value
        raise FormatError(f"the {what} at byte {self.position - 1} is not a canonical varint")


def write_varint(value: int) -> bytes:
    """LEB128: seven bits a byte, lowest first; bit 7 says that more follow."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


@dataclass(frozen=True)
class Field:
    """One field of the header: how it is written, how it is read, and what it may hold."""

    name: str
    write: Callable[[Header], bytes]
    read: Callable[[Reader], object]
    valid: Callable[[Header], bool]
    expected: str


FIELDS = (
    Field(
        "channels",
        lambda h: bytes([h.channels << 4 | VERSION]),
        lambda r: r.take(1, "version")[0] >> 4,
        lambda h: h.channels in LAYOUTS,
        "1 to 4",
    ),
    Field(
        "width",
        lambda h: write_varint(h.width),
        lambda r: r.varint("width"),
        lambda h: 1 <= h.width <= MAX_SIDE,
        "1 to 2**31 - 1",
    ),
    Field(
        "height",
        lambda h: write_varint(h.height),
        lambda r: r.varint("height"),
        lambda h: 1 <= h.height <= MAX_SIDE,
        "1 to 2**31 - 1",
    ),
    Field(
        "model", lambda h: h.model, lambda r: r.take(4, "model id"), lambda h: len(h.model) == 4, "four bytes"
    ),
    Field(
        "quality",
        lambda h: bytes([h.quality]),
        lambda r: r.take(1, "quality")[0],
        lambda h: 0 <= h.quality <= 100,
        "0 to 100",
    ),
)


def _check(header: Header) -> None:
    for item in FIELDS:
        if not item.valid(header):
            raise FormatError(
                f"the header says {item.name} {getattr(header, item.name)!r}; {item.expected} expected"
            )


def write_header(header: Header) -> bytes:
    """Magic and header; raises :class:`FormatError` for a value that no file may hold."""
    _check(header)
    return MAGIC + b"".join(item.write(header) for item in FIELDS)


def _read_header(reader: Reader, max_pixels: int) -> Header:
    start = reader.data[: len(MAGIC)]
    if not start:
        raise FormatError("the file is empty")
    if start != MAGIC:
        if start[:2] == MAGIC[:2] or start[:2] == b"\x57A":
            raise FormatError(
                f"the file starts with {start.hex(' ')}, not {MAGIC.hex(' ')}: damaged, perhaps by a "
                "transfer in text mode"
            )
        raise FormatError(f"not an .attar file: it starts with {start.hex(' ')}, not {MAGIC.hex(' ')}")
    reader.take(len(MAGIC), "magic")
    version = reader.data[reader.position : reader.position + 1]
    if version and version[0] & 15 != VERSION:
        raise FormatError(
            f"the file has format version {version[0] & 15}; this program reads version {VERSION}: update "
            "attar, or the file is damaged"
        )
    values = {item.name: item.read(reader) for item in FIELDS}
    header = Header(**values)  # type: ignore[arg-type]
    _check(header)
    if header.width * header.height > max_pixels:
        raise FormatError(
            f"the file declares {header.width} x {header.height} = {header.width * header.height} pixels; "
            f"at most {max_pixels} are accepted: raise the limit with --max-pixels (max_pixels=)"
        )
    return header


def read_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Header of a file of which ``data`` holds at least the first 20 bytes."""
    return _read_header(Reader(data), max_pixels)


def pack(header: Header, chunks: Mapping[Chunk, bytes]) -> bytes:
    """Bytes of a file. The chunks are put into their order; every one but the latents gets its checksum."""
    if Chunk.LATENTS not in chunks or header.has_alpha != (Chunk.ALPHA in chunks):
        raise FormatError("a file has latents, and an alpha chunk exactly when its layout says so")
    start = write_header(header)
    out = [start]
    for kind in sorted(chunks, key=_rank):
        body = chunks[kind]
        if kind != Chunk.LATENTS:
            body += _checksum(start, kind, body)
        out += [bytes([kind]), write_varint(len(body)), body]
    return b"".join(out)


def unpack(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Container:
    """Take a file apart and check all of it but the symbols; raises :class:`FormatError`."""
    reader = Reader(data)
    header = _read_header(reader, max_pixels)
    start = data[: reader.position]
    chunks: dict[Chunk, bytes] = {}
    skipped = []
    last = -1
    while reader.position < len(data):
        kind = reader.take(1, "chunk type")[0]
        if _rank(kind) <= last:
            raise FormatError(f"chunk {kind:#04x} is out of order or there twice: damaged")
        last = _rank(kind)
        known = kind in KNOWN
        if not known and not kind & ANCILLARY:
            raise FormatError(
                f"chunk {kind:#04x} is unknown and needed to decode the file: update attar, or the file is "
                "damaged"
            )
        body = reader.take(reader.varint("length of a chunk"), f"chunk {kind:#04x}")
        if kind != Chunk.LATENTS:
            body, found = body[:-CHECKSUM_BYTES], body[-CHECKSUM_BYTES:]
            if found != _checksum(start, kind, body):
                raise FormatError(
                    f"the checksum of chunk {kind:#04x} does not match: damaged, or taken from another file"
                )
        if known:
            chunks[Chunk(kind)] = body
        else:
            skipped.append(kind)
    if Chunk.LATENTS not in chunks:
        raise FormatError("the file ends before its latents: cut short")
    if header.has_alpha != (Chunk.ALPHA in chunks):
        raise FormatError(
            f"the header says {LAYOUTS[header.channels]}, and the alpha chunk is "
            f"{'missing' if header.has_alpha else 'there'}"
        )
    return Container(header, start, chunks, tuple(skipped))


def _rank(kind: int) -> int:
    return kind & ~ANCILLARY


def _checksum(start: bytes, kind: int, body: bytes) -> bytes:
    return zlib.crc32(body, zlib.crc32(bytes([kind]), zlib.crc32(start))).to_bytes(CHECKSUM_BYTES, "little")
