"""A second decoder, written from docs/FORMAT.md alone: plain Python and numpy, slow, and nothing of attar's.

It gives the header, the symbols and the bodies of the chunks; it has no networks.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np

TOTAL_BITS = 24
MASK = (1 << TOTAL_BITS) - 1


class BadFileError(Exception):
    pass


def need(condition: bool, what: str) -> None:
    if not condition:
        raise BadFileError(what)


class Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def bytes(self, count: int) -> bytes:
        need(self.at + count <= len(self.data), "cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.bytes(1)[0]

    def varint(self) -> int:
        value = 0
        for position in range(5):
            byte = self.byte()
            value += (byte & 127) << (7 * position)
            if byte < 128:
                need(position == 0 or byte != 0, "over-long varint")
                return value
        raise BadFileError("varint of more than five bytes")


class Stream:
    """The rANS decoder of one stream."""

    def __init__(self, data: bytes) -> None:
        need(len(data) >= 5 and data[-1] != 0, "not a stream")
        padded = data + bytes(-len(data) % 4)
        self.words = [int.from_bytes(padded[i : i + 4], "little") for i in range(0, len(padded), 4)]
        self.x = self.words.pop() << 32 | self.words.pop()

    def symbol(self, frequencies: list[int]) -> int:
        low, c = self.x & MASK, 0
        for place, f in enumerate(frequencies):  # noqa: B007 - used after the loop
            if low < c + f:
                break
            c += f
        self.x = (self.x >> TOTAL_BITS) * f + low - c
        if self.x < 1 << 32 and self.words:
            self.x = self.x << 32 | self.words.pop()
        return place

    def varints(self, count: int) -> list[int]:
        """Varints whose first bytes all come first, then the second bytes of those that have one."""
        values, unfinished = [0] * count, list(range(count))
        for position in range(5):
            more = []
            for index in unfinished:
                byte = self.symbol([1 << 16] * 256)
                need(position == 0 or byte != 0, "over-long escape")
                values[index] += (byte & 127) << (7 * position)
                if byte >= 128:
                    more.append(index)
            unfinished = more
        need(not unfinished, "escape of more than five bytes")
        return values


def decode_stream(data: bytes, tables: list[dict], positions: int, checked: bytes) -> np.ndarray:
    """Symbols (positions, tables) of one tile; ``checked`` is what the checksum covers before them."""
    stream = Stream(data)
    symbols, escapes = [], []
    for table in tables:
        for _ in range(positions):
            place = stream.symbol(table["frequencies"])
            if place == len(table["frequencies"]) - 1:
                escapes.append((len(symbols), table))
            symbols.append(table["minimum"] + place)
    for (index, table), u in zip(escapes, stream.varints(len(escapes)), strict=True):
        maximum = table["minimum"] + len(table["frequencies"]) - 2
        symbols[index] = table["minimum"] - 1 - u // 2 if u % 2 else maximum + 1 + u // 2
        need(-(2**31) <= symbols[index] < 2**31, "not an int32")
    checksum = zlib.crc32(checked + np.array(symbols, "<i4").tobytes())
    need(stream.x == 1 << 32 | checksum and not stream.words, "checksum")
    return np.array(symbols, np.int32).reshape(len(tables), positions).T


def decode_latents(
    body: bytes, header: bytes, tables: list[dict], shape: tuple[int, ...], stride: int | None
) -> np.ndarray:
    if stride is None:
        positions = int(np.prod(shape[:-1]))
        return decode_stream(body, tables, positions, header + bytes(4)).reshape(shape)
    side = max(1, 1024 // stride)
    corners = [(top, left) for top in range(0, shape[0], side) for left in range(0, shape[1], side)]
    out, cursor = np.zeros(shape, np.int32), Cursor(body)
    for number, (top, left) in enumerate(corners):
        height, width = min(side, shape[0] - top), min(side, shape[1] - left)
        stream = body if len(corners) == 1 else cursor.bytes(cursor.varint())
        checked = header + number.to_bytes(4, "little")
        tile = decode_stream(stream, tables, height * width, checked)
        out[top : top + height, left : left + width] = tile.reshape(height, width, shape[2])
    need(len(corners) == 1 or cursor.at == len(body), "bytes after the last tile")
    return out


def inflate(data: bytes, size: int | None = None) -> bytes:
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(data)
    except zlib.error as error:
        raise BadFileError("zlib") from error
    need(inflater.eof and not inflater.unused_data, "zlib stream cut short or followed by something")
    need(len(raw) <= 1 << 24 if size is None else len(raw) == size, "size of a zlib stream")
    return raw


def decode_alpha(body: bytes, height: int, width: int) -> np.ndarray:
    need(len(body) > 0 and body[0] <= 3, "prediction of alpha")
    plane = np.frombuffer(inflate(body[1:], height * width), np.uint8).reshape(height, width).copy()
    if body[0] in (1, 3):
        for x in range(1, width):
            plane[:, x] += plane[:, x - 1]
    if body[0] in (2, 3):
        for y in range(1, height):
            plane[y] += plane[y - 1]
    return plane


def decode(data: bytes, bundle: Path) -> dict:
    """Header fields, ``symbols``, ``alpha`` and metadata of a file, with the tables of ``bundle``."""
    cursor = Cursor(data)
    need(cursor.bytes(4) == bytes([0xD7, 0x41, 0x0D, 0x0A]), "magic")
    first = cursor.byte()
    need(first % 16 == 1 and first // 16 in (1, 2, 3, 4), "version or channels")
    out: dict = {"channels": first // 16, "width": cursor.varint(), "height": cursor.varint()}
    need(all(1 <= out[side] < 2**31 for side in ("width", "height")), "size")
    need(out["width"] * out["height"] <= 2**28, "pixels")
    out["model"], out["quality"] = cursor.bytes(4), cursor.byte()
    need(out["quality"] <= 100, "quality")
    need(out["model"] == hashlib.sha256(bundle.read_bytes()).digest()[:4], "bundle")
    header = data[: cursor.at]
    chunks: dict[int, bytes] = {}
    last = -1
    while cursor.at < len(data):
        kind = cursor.byte()
        need(kind % 128 > last, "order of chunks")
        last = kind % 128
        body = cursor.bytes(cursor.varint())
        need(kind >= 128 or kind in (0x20, 0x7F), "unknown chunk")
        if kind != 0x7F:
            need(len(body) >= 4, "CRC")
            body, crc = body[:-4], body[-4:]
            need(int.from_bytes(crc, "little") == zlib.crc32(header + bytes([kind]) + body), "CRC")
        chunks[kind] = body
    need(0x7F in chunks and (0x20 in chunks) == (out["channels"] in (2, 4)), "chunks")
    with zipfile.ZipFile(bundle) as archive:
        manifest, tables = (json.loads(archive.read(name)) for name in ("manifest.json", "tables.json"))
    latent, multiple = manifest["latent"], manifest["multiple"]
    need(manifest["size"] in (None, [out["height"], out["width"]]), "size of the model")
    need(manifest["channels"] == 3 or out["channels"] < 3, "colours of the model")
    shape = (*tuple(latent["shape"]), latent["channels"])
    if latent["stride"] is not None:
        sides = (-(-out[side] // multiple) * multiple // latent["stride"] for side in ("height", "width"))
        shape = (*sides, latent["channels"])
    out["symbols"] = decode_latents(chunks[0x7F], header, tables, shape, latent["stride"])
    for kind, name in ((0x81, "icc"), (0x82, "exif"), (0x83, "xmp")):
        out[name] = inflate(chunks[kind]) if kind in chunks else None
    out["alpha"] = decode_alpha(chunks[0x20], out["height"], out["width"]) if 0x20 in chunks else None
    return out
