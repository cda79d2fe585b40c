"""The ledger of a run, in the folder of its outputs.

::

    ledger.csv          a line for each image: what became of it, see attar.apps.bulk.records.Row
    ledger.json         the settings, which must be the same for the run to go on
    ledger.parts/       while it runs: N.csv, the rows of shard N, written whole by its worker when it is done;
                        N.claim, before: outputs that are not there yet, which therefore are this run's to write

CSV, because every tool reads it and pyarrow is no part of Attar. One file for each shard, because workers on many
machines can then write without a lock, and because a file that is renamed into place is whole or not there.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from attar import __version__
from attar.apps.bulk.records import Item, Row, Settings, Shard
from attar.apps.bulk.table import read_rows, to_csv, write_rows
from attar.codec.files import sweep, write_bytes
from attar.errors import AttarError

__all__ = ["PARTS", "SETTINGS", "Ledger", "begun", "claim", "open_ledger", "settle", "written"]

NAME, SETTINGS, PARTS = "ledger.csv", "ledger.json", "ledger.parts"
ROWS, CLAIM = ".csv", ".claim"


def claim(folder: Path, shard: Shard) -> None:
    """Write down, before a shard is begun, which of its outputs are not there yet: those may be written.

    A worker that dies leaves outputs without rows; by its claim they are told from files of other origin.
    """
    free = [item.output for item in shard.items if item.ours or not os.path.lexists(folder / item.output)]
    write_bytes(_part(folder, shard, CLAIM), json.dumps(free).encode())


def begun(folder: Path, shard: Shard) -> bool:
    """Whether a worker began the shard, and did not end it."""
    return _part(folder, shard, CLAIM).exists()


def written(folder: Path, shard: Shard) -> tuple[Row, ...] | None:
    """The rows of a shard, if a worker has written them."""
    part = _part(folder, shard, ROWS)
    return tuple(read_rows(part)) if part.exists() else None


def settle(folder: Path, shard: Shard, rows: Iterable[Row]) -> None:
    """Write the rows of a shard that is done, whole, in place of its claim."""
    write_bytes(_part(folder, shard, ROWS), to_csv(rows))
    _part(folder, shard, CLAIM).unlink(missing_ok=True)


class Ledger:
    """The ledger of the run that this process drives; made by :func:`open_ledger`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / NAME
        self.run = secrets.token_hex(4)  # a late part of a run whose driver was killed is not taken for ours
        self._shards = 0

    def shard(self, items: Sequence[Item], tries: int = 0) -> Shard:
        """A shard with a name of its own."""
        self._shards += 1
        return Shard(f"{self.run}-{self._shards:08}", tuple(items), tries)

    def known(self, items: Iterable[Item]) -> list[Item]:
        """The items, with the rows and claims that earlier runs left of them."""
        self.merge()
        rows = {row.output: row for row in read_rows(self.path)} if self.path.exists() else {}
        claimed = {name for path in self._parts(CLAIM) for name in _read_claim(path)}
        out = []
        for item in items:
            row = rows.get(item.output)
            kept = row if row is not None and row.ok and row.input == item.input else None
            out.append(replace(item, row=kept, ours=kept is not None or item.output in claimed))
        sweep(self.folder / item.output for item in out if item.output in claimed)
        return out

    def reclaimed(self, shard: Shard) -> tuple[Item, ...]:
        """The items of a shard whose worker has died, to be done again."""
        path = _part(self.folder, shard, CLAIM)
        claimed = set(_read_claim(path)) if path.exists() else set()
        sweep(self.folder / name for name in claimed & {item.output for item in shard.items})
        return tuple(replace(item, ours=item.ours or item.output in claimed) for item in shard.items)

    def merge(self) -> None:
        """Move the rows of the parts into ``ledger.csv``, in place of earlier ones of the same outputs."""
        if parts := self._parts(ROWS):
            write_rows(self.path, self._merged(parts))
            for part in parts:
                part.unlink(missing_ok=True)

    def finish(self) -> None:
        """Remove what is only needed while something is left to be done."""
        self.merge()
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)

    def _merged(self, parts: Sequence[Path]) -> Iterator[Row]:
        """Earlier rows, then those of the parts; a shard that was done twice has its last ones."""
        last = {row.output: number for number, part in enumerate(parts) for row in read_rows(part)}
        if self.path.exists():
            yield from (row for row in read_rows(self.path) if row.output not in last)
        for number, part in enumerate(parts):
            yield from (row for row in read_rows(part) if last[row.output] == number)

    def _parts(self, suffix: str) -> list[Path]:
        return sorted((self.folder / PARTS).glob(f"[!.]*{suffix}"))


@contextmanager
def open_ledger(folder: Path, settings: Settings, *, anew: bool = False) -> Iterator[Ledger]:
    """The ledger in ``folder``, which is made, for as long as the run lasts.

    ``anew`` forgets an earlier run. Raises :class:`AttarError` where an earlier run had other settings, or while
    another process runs in the same folder.
    """
    _make(folder)
    with _lock(folder):
        if anew:
            for name in (NAME, SETTINGS):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / PARTS, ignore_errors=True)
        sweep([folder / NAME, folder / SETTINGS])
        _agree(folder, settings)
        _make(folder / PARTS)
        yield Ledger(folder)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AttarError(f"{folder} cannot be made a folder: {error.strerror or error}") from error


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Refuse a second driver in one folder; the kernel frees the lock of a process that was killed."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise AttarError(f"{folder}: another attar bulk is writing there; wait for it to end") from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(handle)


def _agree(folder: Path, settings: Settings) -> None:
    """Write the settings down, or hold them against those of the run that goes on."""
    path, wanted = folder / SETTINGS, settings.identity()
    if not path.exists() and not (folder / NAME).exists():
        document = {"attar": __version__, "settings": wanted}
        write_bytes(path, json.dumps(document, indent=1).encode() + b"\n")
        return
    try:
        found = json.loads(path.read_bytes())["settings"]
        differing = [name for name in wanted if found[name] != wanted[name]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise AttarError(
            f"{path}: not the settings of a run of attar bulk; begin anew with -f, or name another folder"
        ) from error
    if differing:
        words = ", ".join(f"{name} was {found[name]!r} and is {wanted[name]!r}" for name in differing)
        raise AttarError(
            f"{path}: the run that was begun there had other settings ({words}): give the same again, name another "
            "folder, or begin anew with -f, which overwrites its outputs"
        )


def _part(folder: Path, shard: Shard, suffix: str) -> Path:
    return folder / PARTS / f"{shard.name}{suffix}"


def _read_claim(path: Path) -> list[str]:
    try:
        names = json.loads(path.read_bytes())
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    except (OSError, ValueError, RecursionError):
        pass
    raise AttarError(f"{path}: not a claim of attar bulk: delete it, or begin anew with -f")
