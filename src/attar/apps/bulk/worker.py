"""The worker: a shard in, a row for each of its images out. It never raises; whatever goes wrong is in a row.

Images of equal size go through the networks together, up to :data:`attar.codec.codec.MAX_BATCH_PIXELS`, and no more
than that and one image is held in memory.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import time
import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from attar.apps.bulk import ledger
from attar.apps.bulk.records import COMPRESS, Answer, Item, Lost, Row, Settings, Shard
from attar.codec import bundle, images
from attar.codec.codec import MAX_BATCH_PIXELS, Codec
from attar.codec.container import read_header
from attar.codec.files import write_bytes
from attar.codec.images import Picture
from attar.codec.shelf import Shelf
from attar.codec.targets import Target
from attar.errors import AttarError
from attar.measure.rows import IDENTICAL

__all__ = ["Worker", "failed"]


@dataclass(frozen=True)
class Loaded:
    """An input in memory: what can be done together has an equal ``group``. ``row`` lacks what is made of it."""

    item: Item
    content: Any
    group: Hashable
    row: Row


class Way(Protocol):
    """One direction: how an input is read, and what a group of equal ones becomes."""

    def load(self, data: bytes, name: str) -> tuple[Any, Hashable, int, int, int]:
        """Content, group, width, height and channels of an input."""

    def convert(self, contents: Sequence[Any], names: Sequence[str]) -> list[tuple[bytes, dict[str, Any]]]:
        """Bytes of the outputs, and further columns of their rows."""


class Worker:
    """Does shards into the folder ``out``; one is made in each process.

    ``model``: bytes of the bundle for all files; None where each file names its own. Networks run on one thread:
    there is a worker for each core.
    """

    def __init__(self, settings: Settings, model: bytes | None, out: Path) -> None:
        warnings.filterwarnings("ignore", module=r"PIL\.")  # on odd metadata; bad pixels are errors
        self.settings = settings
        self.out = out
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        codec = None if model is None else Codec(bundle.from_bytes(model, source="the bundle"), threads=1)
        self.way: Way = (
            Compress(settings, codec) if settings.direction == COMPRESS else Decompress(settings, codec)
        )

    def __call__(self, shard: Shard) -> Answer | Lost:
        """Do the images of a shard and write their rows into the ledger.

        A cluster gives the shard of a worker that died to another one, for ever. What was done is not done twice,
        and what was begun is given back: the driver decides.
        """
        try:
            if (rows := ledger.written(self.out, shard)) is not None:
                return Answer(rows)
            if ledger.begun(self.out, shard):
                return Lost("while a cluster ran it")
            ledger.claim(self.out, shard)
            rows = self._rows(shard)
            ledger.settle(self.out, shard, rows)
        except (AttarError, OSError) as error:
            return Answer(fault=f"the ledger cannot be written: {error}")
        return Answer(rows)

    def _rows(self, shard: Shard) -> tuple[Row, ...]:
        rows: dict[str, Row] = {}
        groups: dict[Hashable, list[Loaded]] = defaultdict(list)
        pixels = 0
        for item in shard.items:
            if item.row is not None and self._kept(item, item.row):
                rows[item.output] = item.row
                continue
            started = time.perf_counter()
            try:
                loaded = self._load(item, started)
            except Exception as error:  # of any library that reads images
                rows[item.output] = self._failed(item, error)
                continue
            groups[loaded.group].append(loaded)
            pixels += (loaded.row.width or 0) * (loaded.row.height or 0)
            if pixels >= MAX_BATCH_PIXELS:
                rows |= self._done(groups)
                pixels = 0
        rows |= self._done(groups)
        return tuple(rows[item.output] for item in shard.items)

    def _kept(self, item: Item, row: Row) -> bool:
        """Whether the input is the one that ``row`` tells of, and the output is what was made of it then.

        A stored hash, not the verification of .attar files: it also finds a sound file that is another one, serves
        images as well, and takes a hundredth of the time.
        """
        try:
            given = Path(item.input).stat()
            data = (self.out / item.output).read_bytes()
        except OSError:
            return False
        unchanged = (given.st_size, given.st_mtime_ns) == (row.input_bytes, row.input_mtime_ns)
        return unchanged and _digest(data) == row.sha256

    def _load(self, item: Item, started: float) -> Loaded:
        if not item.ours and os.path.lexists(self.out / item.output):
            raise AttarError(
                f"{self.out / item.output} exists already, and no run noted in this ledger made it: move it away, or "
                "overwrite everything with -f"
            )
        found = Path(item.input).stat()  # before reading: a change meanwhile is then seen next time
        if not stat.S_ISREG(found.st_mode):
            raise AttarError(f"{item.input}: a folder, a pipe or a device, not a file")
        data = Path(item.input).read_bytes()
        content, group, width, height, channels = self.way.load(data, item.input)
        row = Row(
            output=item.output,
            input=item.input,
            input_bytes=len(data),
            input_mtime_ns=found.st_mtime_ns,
            width=width,
            height=height,
            channels=channels,
            worker=self.name,
        )
        return Loaded(item, content, group, replace(row, seconds=time.perf_counter() - started))

    def _done(self, groups: dict[Hashable, list[Loaded]]) -> dict[str, Row]:
        """Rows of all that is loaded, by output; empties ``groups``."""
        rows: dict[str, Row] = {}
        while groups:
            _, group = groups.popitem()
            rows |= {row.output: row for row in self._converted(group)}
        return rows

    def _converted(self, group: Sequence[Loaded]) -> Iterator[Row]:
        started = time.perf_counter()
        try:
            made = self.way.convert(
                [loaded.content for loaded in group], [loaded.item.input for loaded in group]
            )
        except Exception as error:  # one of them spoils the batch: each for itself
            if len(group) > 1:
                for loaded in group:
                    yield from self._converted([loaded])
            else:
                yield self._failed(group[0].item, error)
            return
        each = (time.perf_counter() - started) / len(group)
        for loaded, (data, columns) in zip(group, made, strict=True):
            yield self._written(loaded, data, columns, each)

    def _written(self, loaded: Loaded, data: bytes, columns: dict[str, Any], seconds: float) -> Row:
        started = time.perf_counter()
        item, target = loaded.item, self.out / loaded.item.output
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, data, overwrite=item.ours)
        except Exception as error:
            return self._failed(item, error)
        spent = (loaded.row.seconds or 0) + seconds + time.perf_counter() - started
        return replace(loaded.row, bytes=len(data), sha256=_digest(data), seconds=round(spent, 6), **columns)

    def _failed(self, item: Item, error: Exception) -> Row:
        return replace(failed(item, error), worker=self.name)


class Compress:
    """Images -> ``.attar`` files."""

    def __init__(self, settings: Settings, codec: Codec | None) -> None:
        self.settings = settings
        self.codec = codec or Shelf(threads=1).named()
        self.target = Target(*settings.target) if settings.target else None

    def load(self, data: bytes, name: str) -> tuple[Picture, Hashable, int, int, int]:
        """The picture; see :class:`Way`."""
        picture = images.read(
            data, convert=self.settings.convert, max_pixels=self.settings.max_pixels, name=name
        )
        height, width, colours = picture.pixels.shape
        channels = colours + (picture.alpha is not None)
        plain = picture.stripped() if self.settings.strip else picture
        return plain, picture.pixels.shape, width, height, channels

    def convert(
        self, contents: Sequence[Picture], names: Sequence[str]
    ) -> list[tuple[bytes, dict[str, Any]]]:
        """Files; with ``metrics`` also the PSNR and SSIM of what is decoded from them."""
        files = self._files(contents)
        if not self.settings.metrics:
            return [(data, {}) for data in files]
        from attar.measure import metrics

        out: list[tuple[bytes, dict[str, Any]]] = []
        pictures = self.codec.decode_batch(files, max_pixels=self.settings.max_pixels)
        for data, picture, decoded in zip(files, contents, pictures, strict=True):
            psnr = metrics.psnr(picture.pixels, decoded.pixels)
            ssim = metrics.ssim(picture.pixels, decoded.pixels)
            out.append((data, {"psnr": IDENTICAL if psnr is None else psnr, "ssim": ssim}))
        return out

    def _files(self, contents: Sequence[Picture]) -> list[bytes]:
        effort = self.settings.effort
        if self.target is None:
            return self.codec.compress_batch(contents, quality=self.settings.quality, effort=effort)
        from attar.apps.reaching import compress_to

        return [compress_to(self.target, self.codec, picture, effort) for picture in contents]


class Decompress:
    """``.attar`` files -> images."""

    def __init__(self, settings: Settings, codec: Codec | None) -> None:
        self.settings = settings
        self.codec = codec
        self.shelf = Shelf(threads=1)
        self.kind = images.format_of(settings.suffix)

    def load(self, data: bytes, name: str) -> tuple[bytes, Hashable, int, int, int]:
        """The file; see :class:`Way`."""
        header = read_header(data, max_pixels=self.settings.max_pixels)
        group = (header.model, header.height, header.width)
        return data, group, header.width, header.height, header.channels

    def convert(self, contents: Sequence[bytes], names: Sequence[str]) -> list[tuple[bytes, dict[str, Any]]]:
        """Images of the kind that was asked for."""
        limit = self.settings.max_pixels
        codec = self.codec or self.shelf.for_file(contents[0], max_pixels=limit)
        pictures = codec.decode_batch(contents, max_pixels=limit)
        return [
            (images.encode(picture, self.kind, name=name), {})
            for picture, name in zip(pictures, names, strict=True)
        ]


def failed(item: Item, error: Exception) -> Row:
    """The row of an image that could not be done; its error is on one line and begins with a file's name."""
    if isinstance(error, AttarError):
        text, code = str(error), error.exit_code
    elif isinstance(error, FileNotFoundError):
        text, code = "no such file", 1
    elif isinstance(error, OSError):
        text, code = f"cannot be read or written: {error.strerror or error}", 1
    else:
        text, code = f"{type(error).__name__}: {error}", 1
    named = text if item.input in text or item.output in text else f"{item.input}: {text}"
    return Row(
        output=item.output, input=item.input, status="failed", error=" ".join(named.split()), exit_code=code
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
