"""The run, top to bottom: shards through an engine; lost ones again, then image by image; rows as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from attar.apps.bulk.ledger import Ledger, settle, written
from attar.apps.bulk.records import Answer, Lost, Row, Shard
from attar.apps.bulk.worker import failed
from attar.errors import AttarError

__all__ = ["Engine", "Totals", "run"]

TRIES = 2
"""Workers that may die over a shard before it is taken apart, and over a single image before it is given up."""
LOSSES_EACH = 8
"""Shards that each worker may lose before any is done: then it is not the images' fault."""


class Engine(Protocol):
    """Does shards somewhere, in any order, ``jobs`` at a time; each comes back once."""

    jobs: int

    def run(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Answer | Lost]]:
        """Answers as they come."""


@dataclass
class Totals:
    """The run so far. Bytes, files and seconds are of this run; ``kept`` were done before."""

    images: int
    done: int = 0
    kept: int = 0
    failed: int = 0
    input_bytes: int = 0
    bytes: int = 0
    worker_deaths: int = 0
    exit_codes: set[int] = field(default_factory=set)
    started: float = field(default_factory=time.perf_counter)

    def restart(self) -> None:
        """Count seconds from now: the workers are there."""
        self.started = time.perf_counter()

    def add(self, shard: Shard, rows: Sequence[Row]) -> None:
        """Count the rows of a shard."""
        for item, row in zip(shard.items, rows, strict=True):
            if not row.ok:
                self.failed += 1
                self.exit_codes.add(row.exit_code)
            elif row == item.row:
                self.kept += 1
            else:
                self.done += 1
                self.input_bytes += row.input_bytes or 0
                self.bytes += row.bytes or 0

    @property
    def seen(self) -> int:
        """Images of which it is known what became of them."""
        return self.done + self.kept + self.failed

    @property
    def saved_percent(self) -> float | None:
        """How much smaller the outputs are, in percent of the inputs; negative where they are larger."""
        return 100 * (1 - self.bytes / self.input_bytes) if self.input_bytes else None

    def rates(self) -> tuple[float, float]:
        """Files, and megabytes of input, a second."""
        seconds = max(time.perf_counter() - self.started, 1e-9)
        return (self.done + self.failed) / seconds, self.input_bytes / 1e6 / seconds

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        out = {name: value for name, value in asdict(self).items() if name not in ("started", "exit_codes")}
        files, megabytes = self.rates()
        return out | {
            "saved_percent": self.saved_percent,
            "seconds": time.perf_counter() - self.started,
            "files_per_second": files,
            "megabytes_per_second": megabytes,
        }


Report = Callable[[Shard, Sequence[Row]], None]
"""Called with the rows of each shard when it is done."""


def run(ledger: Ledger, shards: Iterable[Shard], engine: Engine, totals: Totals, report: Report) -> None:
    """Do all shards; the ledger then has a row for each of their images.

    A shard whose worker died is done again, then image by image, so that an image that kills its worker ends as a
    failed row and takes no other with it. Raises :class:`AttarError` when the ledger cannot be written, or when
    workers die over everything; what was done is in the ledger then, too.
    """
    waiting = list(shards)
    while waiting:
        again: list[Shard] = []
        for shard, answer in _answers(engine, waiting):
            if isinstance(answer, Answer) and answer.fault:
                raise AttarError(f"{answer.fault}; what was done is kept: give the same command again")
            if isinstance(answer, Lost):
                totals.worker_deaths += answer.tried
                rows = written(ledger.folder, shard) or _given_up(ledger, shard, answer)
                if rows is None:
                    again += _anew(ledger, shard, answer)
                    _check_losses(totals, engine.jobs, answer)
                    continue
            else:
                rows = answer.rows
            totals.add(shard, rows)
            report(shard, rows)
        waiting = again


def _answers(engine: Engine, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Answer | Lost]]:
    """What became of every shard, also of those that an engine ended without: it is not trusted to tell of all.

    Raises :class:`AttarError` where an engine answers nothing at all.
    """
    missing = {shard.name: shard for shard in shards}
    for shard, answer in engine.run(shards):
        if missing.pop(shard.name, None) is not None:
            yield shard, answer
    if len(missing) == len(shards):
        raise AttarError(
            f"the engine ended without a word on {len(missing)} shards; what was done is kept: give the same command "
            "again"
        )
    for shard in missing.values():
        yield shard, Lost("the engine ended without it", tried=False)


def _anew(ledger: Ledger, shard: Shard, lost: Lost) -> list[Shard]:
    """The shard again, or its images one by one."""
    items, tries = ledger.reclaimed(shard), shard.tries + lost.tried
    if tries < TRIES:
        return [ledger.shard(items, tries)]
    return [ledger.shard([item]) for item in items]


def _given_up(ledger: Ledger, shard: Shard, lost: Lost) -> tuple[Row, ...] | None:
    """A failed row for an image that has killed enough workers all alone."""
    if len(shard.items) > 1 or shard.tries + lost.tried < TRIES:
        return None
    (item,) = ledger.reclaimed(shard)
    error = AttarError(
        f"{item.input}: {TRIES} processes that worked on it alone died ({lost.how}): out of memory, or a library "
        "crashed"
    )
    rows = (replace(failed(item, error)),)
    settle(ledger.folder, shard, rows)
    return rows


def _check_losses(totals: Totals, workers: int, lost: Lost) -> None:
    if not totals.seen and totals.worker_deaths >= LOSSES_EACH * workers:
        raise AttarError(
            f"{totals.worker_deaths} workers died and none has done anything, the last one thus: {lost.how}; is there "
            f"too little memory for {workers} of them (-j)? Does attar compress work on one of these images?"
        )
