"""A folder, a list or a glob -> items with their outputs, and items -> shards."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from attar.apps.bulk.ledger import PARTS
from attar.apps.bulk.records import COMPRESS, DECOMPRESS, Item
from attar.codec.images import SUFFIXES
from attar.errors import AttarError

__all__ = ["ATTAR", "collect", "cut"]

ATTAR = ".attar"
STDIN = "-"
MOST_IMAGES = 1024
"""Most images of a shard: a second or so of digits. Ray spends about 30 ms of CPU on each shard."""
MOST_BYTES = {COMPRESS: 32 << 20, DECOMPRESS: 4 << 20}
"""Most bytes that are read for a shard; those of a .attar file stand for many times as many of pixels."""
SHARDS_EACH = 8
"""Small jobs are cut into at least so many shards for each worker, so that all end at about the same time."""


def collect(source: str, direction: str, suffix: str) -> list[Item]:
    """The items of ``source``: a folder, a glob pattern, a file that lists paths, or ``-`` for such a list.

    Of a folder: files with the suffixes of images (to decompress: ``.attar``), at any depth, but for hidden ones;
    their outputs keep the tree below it. Of a pattern: every file that it matches; outputs keep the tree below
    its fixed part. A list has a path a line, or between NUL bytes, relative to the current folder; outputs have
    the same relative paths, without a leading slash. Raises :class:`AttarError` where there is nothing, and where
    two inputs would become one output, naming both.
    """
    found = dict(_found(source, direction))
    if not found:
        raise AttarError(_nothing(source, direction))
    items: list[Item] = []
    taken: dict[str, str] = {}
    for path, place in found.items():
        if not PurePath(place).name or PurePath(place).parts[0] == PARTS:
            raise AttarError(
                f"{path} is a folder, or its output would be in {PARTS}, which is the ledger's: leave it out"
            )
        output = _renamed(place, suffix)
        if (other := taken.setdefault(os.path.normcase(output), path)) != path:
            raise AttarError(
                f"{other} and {path} would both become {output}: rename one of them, or do them in two runs"
            )
        items.append(Item(path, output, _size(path)))
    return items


def cut(
    items: Sequence[Item], direction: str, workers: int, most_images: int = 0
) -> Iterator[tuple[Item, ...]]:
    """Consecutive items, bounded by count (0: as fits their number) and by bytes, one at least."""
    most_images = most_images or max(1, min(MOST_IMAGES, len(items) // (SHARDS_EACH * workers)))
    shard: list[Item] = []
    size = 0
    for item in items:
        cost = item.size if item.row is None else item.row.bytes or 0
        if shard and (len(shard) == most_images or size + cost > MOST_BYTES[direction]):
            yield tuple(shard)
            shard, size = [], 0
        shard.append(item)
        size += cost
    if shard:
        yield tuple(shard)


def _found(source: str, direction: str) -> Iterator[tuple[str, str]]:
    """Absolute paths of the inputs, and their places below the folder of the outputs."""
    path = Path(source)
    if path.is_dir():
        yield from _below(path, {ATTAR} if direction == DECOMPRESS else SUFFIXES)
    elif source == STDIN or path.exists():
        if path.suffix.lower() in SUFFIXES | {ATTAR}:
            raise AttarError(f"{source} is one file: attar {direction} {source} does it, bulk takes many")
        yield from _listed(source)
    elif glob.has_magic(source):
        fixed = os.path.abspath(_fixed_part(source))  # noqa: PTH100 - resolve() would follow links
        matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute one
        for name in matches:
            if Path(name).is_file():
                full = os.path.abspath(name)  # noqa: PTH100
                yield full, os.path.relpath(full, fixed)
    else:
        raise AttarError(
            f"{source}: no such folder or list of files, and no pattern such as 'photos/**/*.jpg'"
        )


def _below(folder: Path, suffixes: Iterable[str]) -> Iterator[tuple[str, str]]:
    def refuse(error: OSError) -> None:
        raise AttarError(f"{error.filename}: cannot be read: {error.strerror}")

    root = os.path.abspath(folder)  # noqa: PTH100
    wanted = tuple(suffixes)
    for place, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            full = os.path.join(place, name)  # noqa: PTH118 - ten times the speed of Path, for millions
            if not name.startswith(".") and name.lower().endswith(wanted):
                yield full, full[len(root) + 1 :] if len(root) > 1 else full[1:]


def _listed(source: str) -> Iterator[tuple[str, str]]:
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except OSError as error:
        raise AttarError(f"{source}: cannot be read: {error.strerror or error}") from error
    lines = data.split(b"\0") if b"\0" in data else data.splitlines()
    for line in lines:
        if line:
            name = os.path.normpath(os.fsdecode(line))
            full = os.path.abspath(name)  # noqa: PTH100
            inside = not PurePath(name).is_absolute() and not name.startswith(os.pardir + os.sep)
            yield full, name if inside else str(PurePath(full).relative_to(PurePath(full).anchor))


def _fixed_part(pattern: str) -> str:
    """The folders of a pattern before its first magic one."""
    fixed: list[str] = []
    for part in PurePath(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return str(PurePath(*fixed))


def _renamed(place: str, suffix: str) -> str:
    path = PurePath(place)
    return (path.with_suffix(suffix) if path.suffix else path.with_name(path.name + suffix)).as_posix()


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0  # the worker says what is wrong with it


def _nothing(source: str, direction: str) -> str:
    if not Path(source).is_dir():
        return f"{source}: names no file"
    if direction == DECOMPRESS:
        return f"{source} holds no {ATTAR} files"
    others = sum(1 for _ in _below(Path(source), {ATTAR}))
    hint = f"; it holds {others} {ATTAR} files, which --decompress turns into images" if others else ""
    return f"{source} holds no images, no files ending in {', '.join(sorted(SUFFIXES))}{hint}"
