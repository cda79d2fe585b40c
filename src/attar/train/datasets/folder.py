"""A folder of images: every image file below it, at any depth."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from attar.codec.images import SUFFIXES
from attar.errors import DatasetError
from attar.train.datasets.assign import TEST, TRAIN, VALIDATION
from attar.train.datasets.decode import Record

__all__ = ["scan"]

HELD_OUT = {"val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}
MAX_FILE = 2**30
"""The largest image file that is read, in bytes."""


def scan(folder: Path) -> tuple[list[Record], bytes, tuple[str, ...]]:
    """Find the images: records sorted by relative path, a digest of their state, and what is unreadable.

    Hidden files and folders are passed over, links are followed. What is below a ``val`` (``valid``,
    ``validation``) or ``test`` folder at the top is held out; all else, below ``train`` or not, is to train
    on.
    Raises :class:`DatasetError` when there is no image.
    """
    unreadable: list[str] = []
    others: Counter[str] = Counter()
    found: list[tuple[str, Path, os.stat_result]] = []
    for path in _walk(folder, unreadable):
        if path.suffix.lower() not in SUFFIXES:
            others[path.suffix.lower() or "no suffix"] += 1
            continue
        name = path.relative_to(folder).as_posix()
        try:
            status = path.stat()
        except OSError as error:
            unreadable.append(f"{name}: {error.strerror}")
            continue
        if stat.S_ISREG(status.st_mode):
            found.append((name, path, status))
        else:
            unreadable.append(f"{name}: not a regular file")
    if not found:
        holds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5)) or "no files"
        faults = f"; {unreadable[0]}" if unreadable else ""
        raise DatasetError(
            f"{folder}: no images below it (it holds {holds}{faults}); expected {' '.join(sorted(SUFFIXES))}"
        )
    found.sort(key=lambda entry: entry[0])
    state = hashlib.blake2b()
    records = []
    for name, path, status in found:
        state.update(f"\0{name}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "surrogateescape"))
        part = HELD_OUT.get(PurePosixPath(name).parts[0].lower(), TRAIN) if "/" in name else TRAIN
        records.append(Record(_printable(name), part, partial(_read, path)))
    return records, state.digest(), tuple(_printable(line) for line in unreadable)


def _walk(folder: Path, unreadable: list[str]) -> Iterator[Path]:
    """Walk over the files, each folder once however links lead to it."""
    visited: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(
        folder,
        followlinks=True,
        onerror=lambda error: unreadable.append(f"{error.filename}: {error.strerror}"),
    ):
        status = Path(place).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in visited:
            folders.clear()
            continue
        visited.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_FILE:
        raise DatasetError(f"{size} bytes, more than the {MAX_FILE} that are read")
    return path.read_bytes()


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode()
