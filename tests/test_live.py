"""What a run tells of itself while it goes on: its age is its life, its samples are few and evenly spread."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar.errors import AttarError, TrainingError
from attar.train import live
from attar.train.live import Live, Status
from attar.train.progress import Progress


def status(run: Path) -> Status:
    found = Status.from_json((run / "progress.json").read_text())
    assert found is not None
    return found


def test_a_run_that_ended_says_how(tmp_path: Path) -> None:
    progress = Progress(steps_per_epoch=10)
    with Live(tmp_path, progress, epochs=3) as told:
        assert status(tmp_path).state == "training"
        progress.epoch, progress.batch, progress.images, progress.sums = 1, 5, 50, [25.0, 1.0, 1000.0, 45.0]
        now = told.status("training")
    assert (now.epoch, now.epochs, now.step, now.steps) == (1, 3, 15, 30)
    assert (now.loss, now.psnr, now.ssim) == (0.5, 20.0, 0.9)
    assert (now.steps_per_second, now.seconds_left) == (None, None)
    assert status(tmp_path) == dataclasses.replace(now, state="finished")
    with pytest.raises(KeyboardInterrupt), Live(tmp_path, progress, epochs=3):
        raise KeyboardInterrupt
    assert status(tmp_path).state == "interrupted"
    with pytest.raises(TrainingError), Live(tmp_path, progress, epochs=3):
        raise TrainingError(f"{tmp_path}/history.csv cannot be written")
    assert status(tmp_path).state == "failed"
    assert status(tmp_path).fault == f"{tmp_path.name}/history.csv cannot be written"


def test_it_is_written_while_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY", 0.02)
    progress = Progress(steps_per_epoch=10)
    with Live(tmp_path, progress, epochs=1):
        progress.batch = 7
        wait_until(lambda: status(tmp_path).step == 7)
        first = (tmp_path / "progress.json").stat().st_mtime_ns
        wait_until(lambda: (tmp_path / "progress.json").stat().st_mtime_ns != first)
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_the_speed_is_that_of_the_last_steps_and_not_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY", 0.02)
    progress = Progress(steps_per_epoch=100)
    with Live(tmp_path, progress, epochs=2) as told:
        time.sleep(0.3)  # the first step takes long
        progress.batch = 1
        wait_until(lambda: status(tmp_path).step == 1)
        began = time.monotonic()
        assert told.status("training").steps_per_second is None
        time.sleep(0.2)
        progress.batch = 41
        now = told.status("training")
        assert now.steps_per_second is not None
        assert 0.7 * 40 / (time.monotonic() - began + 0.02) <= now.steps_per_second <= 40 / 0.2
        assert now.seconds_left == pytest.approx(159 / now.steps_per_second)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    with Live(tmp_path / "gone", Progress(steps_per_epoch=1), epochs=1):
        pass
    assert not (tmp_path / "gone").exists()


SOUND = Status("training", 1, 3, 15, 30, 0.5, None, 0.9, 2.0, 7.5, None)


def test_a_status_is_read_as_it_was_written() -> None:
    assert Status.from_json(SOUND.to_json()) == SOUND


@pytest.mark.parametrize(
    "change",
    [
        {"state": "sleeping"},
        {"epoch": -1},
        {"epoch": 1.5},
        {"step": "1"},
        {"steps": True},
        {"loss": "0"},
        {"loss": float("nan")},
        {"fault": 3},
        {"more": 1},
        {"step": 1 << 60},
    ],
)
def test_what_is_no_status_is_none(change: dict[str, object]) -> None:
    text = json.dumps(dataclasses.asdict(SOUND) | change)
    assert Status.from_json(text) is None
    assert Status.from_json(text[:-1]) is None
    assert Status.from_json("[" * 5000) is None
    assert Status.from_json("[]") is None
    assert Status.from_json("{}") is None


@given(st.integers(1, 100_000), st.integers(0, 1000))
def test_few_epochs_are_kept_and_none_is_missed_later(epoch: int, more: int) -> None:
    chosen = live.kept(epoch)
    assert len(chosen) <= live.MOST_SAMPLES
    assert {1, epoch} <= chosen <= set(range(1, epoch + 1))
    later = live.kept(epoch + more)
    assert {old for old in later if old < epoch} <= chosen
    gaps = [b - a for a, b in zip(sorted(chosen)[:-1], sorted(chosen)[1:], strict=True)]
    assert len(set(gaps[:-1])) <= 1


def test_samples_are_thinned_and_other_files_left_alone(tmp_path: Path) -> None:
    for epoch in range(1, 41):
        live.keep_sample(tmp_path, epoch, b"%d" % epoch)
        if epoch == 1:
            (tmp_path / "samples" / "notes.txt").write_text("mine")
            (tmp_path / "samples" / "epoch-01.png").write_text("mine")
    found = {path.name for path in (tmp_path / "samples").iterdir()}
    assert found == {"notes.txt", "epoch-01.png", *(f"epoch-{epoch}.png" for epoch in live.kept(40))}
    assert (tmp_path / "samples" / "epoch-40.png").read_bytes() == b"40"
    live.keep_sample(tmp_path, 1, b"anew")  # a new run in the same folder
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {
        "notes.txt",
        "epoch-01.png",
        "epoch-1.png",
    }
    (tmp_path / "file").write_text("")
    with pytest.raises(AttarError, match="samples: cannot be written"):
        live.keep_sample(tmp_path / "file", 1, b"")
