"""What a run of attar bulk does with shards whose workers die, and with a ledger that cannot be written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from attar.apps.bulk import plan, run, table
from attar.apps.bulk.ledger import Ledger, claim, open_ledger
from attar.apps.bulk.records import COMPRESS, Answer, Lost, Row, Settings, Shard
from attar.apps.bulk.worker import Worker
from attar.errors import AttarError
from bulk_kit import add, expected, mixed, tree

SETTINGS = Settings(COMPRESS, ".attar", model="0" * 64)


class Fragile:
    """An engine whose workers die over some images, in this process; ``late``: after they have written the rows."""

    def __init__(
        self, worker: Worker, deadly: Sequence[str], jobs: int = 2, late: Sequence[str] = ()
    ) -> None:
        self.worker, self.deadly, self.late, self.jobs = worker, set(deadly), set(late), jobs
        self.given: list[list[str]] = []

    def run(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Answer | Lost]]:
        for shard in shards:
            names = [Path(item.input).name for item in shard.items]
            self.given.append(names)
            if self.deadly & set(names):
                claim(self.worker.out, shard)
                yield shard, Lost("signal 9")
            else:
                answer = self.worker(shard)
                yield shard, Lost("signal 9") if self.late & set(names) else answer


@pytest.fixture
def through(tmp_path: Path, photo_bundle: Path):
    """Run images through a fragile engine: the totals, the rows, and the engine."""
    source, out = tmp_path / "in", tmp_path / "out"

    def go(shard_images: int = 4, **faults: object) -> tuple[run.Totals, dict[str, Row], Fragile]:
        engine = Fragile(Worker(SETTINGS, photo_bundle.read_bytes(), out), **faults)
        with open_ledger(out, SETTINGS) as ledger:
            items = ledger.known(plan.collect(str(source), COMPRESS, ".attar"))
            totals = run.Totals(len(items))
            shards = [ledger.shard(part) for part in plan.cut(items, COMPRESS, engine.jobs, shard_images)]
            try:
                run.run(ledger, shards, engine, totals, lambda *_: None)
            finally:
                ledger.merge()
            ledger.finish()
            return totals, {row.output: row for row in table.read_rows(ledger.path)}, engine

    return go


def test_a_deadly_image_ends_as_a_failed_row_alone(tmp_path: Path, photo_bundle: Path, through) -> None:
    source = mixed(tmp_path / "in", 10)
    add(source, "deadly.png")
    totals, rows, engine = through(deadly=["deadly.png"])
    assert [name for name, row in rows.items() if not row.ok] == ["deadly.attar"]
    assert "2 processes that worked on it alone died (signal 9)" in rows["deadly.attar"].error
    assert (totals.done, totals.failed, totals.worker_deaths) == (10, 1, 4)
    assert engine.given.count(["deadly.png"]) == 2
    assert [len(names) for names in engine.given if "deadly.png" in names] == [4, 4, 1, 1]
    files = expected(source, photo_bundle)
    del files["deadly.attar"]
    assert tree(tmp_path / "out") == files


class Forgetful(Fragile):
    """An engine that ends in the middle without an error."""

    def __init__(self, worker: Worker, ends: Sequence[int]) -> None:
        super().__init__(worker, [])
        self.ends = list(ends)

    def run(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Answer | Lost]]:
        yield from super().run(shards[: self.ends.pop(0)] if self.ends else shards)


def test_shards_that_an_engine_ended_without_are_done(tmp_path: Path, photo_bundle: Path) -> None:
    source, out = mixed(tmp_path / "in", 12), tmp_path / "out"
    engine = Forgetful(Worker(SETTINGS, photo_bundle.read_bytes(), out), [3, 1, 2])
    with open_ledger(out, SETTINGS) as ledger:
        items = ledger.known(plan.collect(str(source), COMPRESS, ".attar"))
        totals = run.Totals(len(items))
        run.run(ledger, [ledger.shard([item]) for item in items], engine, totals, lambda *_: None)
        ledger.finish()
        assert (totals.done, totals.failed, totals.worker_deaths) == (12, 0, 0)
        assert tree(out) == expected(source, photo_bundle)
        engine.ends = [0]
        with pytest.raises(
            AttarError, match="the engine ended without a word on 12 shards; what was done is kept"
        ):
            run.run(ledger, [ledger.shard([item]) for item in items], engine, totals, lambda *_: None)


def test_rows_that_a_worker_wrote_before_it_died_count(tmp_path: Path, photo_bundle: Path, through) -> None:
    source = mixed(tmp_path / "in", 10)
    totals, rows, engine = through(deadly=[], late=["0000.png"])
    assert (totals.done, totals.failed, totals.worker_deaths) == (10, 0, 1)
    assert sum(len(names) for names in engine.given) == 10
    assert tree(tmp_path / "out") == expected(source, photo_bundle)
    assert all(row.ok for row in rows.values())


def test_a_run_in_which_every_worker_dies_ends(tmp_path: Path, through) -> None:
    for number in range(40):
        add(mixed(tmp_path / "in", 1), f"deadly{number}.png")
    names = [f"deadly{number}.png" for number in range(40)] + ["0000.png"]
    with pytest.raises(
        AttarError, match="16 workers died and none has done anything, the last one thus: signal 9"
    ):
        through(shard_images=1, deadly=names)


def test_a_ledger_that_cannot_be_written_ends_the_run(tmp_path: Path, through, monkeypatch) -> None:
    mixed(tmp_path / "in", 4)

    def full(*_: object) -> None:
        raise AttarError("x.csv cannot be written: No space left on device")

    monkeypatch.setattr("attar.apps.bulk.ledger.settle", full)
    with pytest.raises(
        AttarError, match=r"No space left on device; what was done is kept: give the same command"
    ):
        through(deadly=[])


def test_a_shard_is_given_back_where_another_worker_died_over_it(tmp_path: Path, photo_bundle: Path) -> None:
    """A cluster gives a shard to another worker by itself; the driver has to hear of it."""
    source = mixed(tmp_path / "in", 2)
    worker = Worker(SETTINGS, photo_bundle.read_bytes(), tmp_path / "out")
    with open_ledger(tmp_path / "out", SETTINGS) as ledger:
        shard = ledger.shard(plan.collect(str(source), COMPRESS, ".attar"))
        claim(tmp_path / "out", shard)
        assert isinstance(worker(shard), Lost)
        again = ledger.shard(ledger.reclaimed(shard))
        answer = worker(again)
        assert isinstance(answer, Answer)
        assert worker(again) == answer  # done is done


def test_a_summary_is_json(tmp_path: Path) -> None:
    totals = run.Totals(0)
    assert json.loads(json.dumps(totals.to_json()))["saved_percent"] is None


def test_the_ledger_names_every_shard_anew(tmp_path: Path) -> None:
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    assert len({first.shard([]).name, first.shard([]).name, second.shard([]).name}) == 3
