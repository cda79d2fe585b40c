"""A run on a local Ray cluster of its own, one of whose workers is killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from pathlib import Path

import keras
import pytest

from attar import spec as specs
from attar.apps import jobs
from attar.apps.cli import runs
from attar.errors import TrainingError
from attar.train import checkpoint, journal
from attar.train.config import TrainConfig
from attar.train.trainer import Trainer
from training_kit import attar, dense, history, refused, start, write_model

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None
    or keras.backend.backend() != "torch"
    or not Path("/proc").exists(),
    reason="needs attar[cluster], PyTorch and Linux",
)
SAME = {"limit": 320, "batch_size": 16, "epochs": 3, "warmup": 10, "seed": 3}


def ray_workers(driver: int) -> list[int]:
    """Processes that train for this driver: grandchildren, by way of the raylet."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name = (path / "cmdline").read_bytes()
            parent = (path / "stat").read_text().rsplit(")", 1)[1].split()[1]
            above = Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()[1]
        except OSError:
            continue  # ended meanwhile
        if name.startswith(b"ray::") and b"RayTrainWorker" in name and int(above) == driver:
            found.append(int(path.name))
    return sorted(found)


@needs_ray
def test_a_run_survives_the_loss_of_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, run = write_model(tmp_path / "model.json"), tmp_path / "run"
    words = [word for name, value in SAME.items() for word in (f"--{name.replace('_', '-')}", value)]
    options = ("--engine", "ray", "--workers", 2, "--json", "--save-minutes", 0)
    last, until = run / "checkpoints" / "last.npz", time.monotonic() + 900
    with start("train", "--model", model, *words, "-o", run, *options) as process:
        try:
            while not last.exists() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            workers = ray_workers(process.pid)
            if len(workers) == 2:  # else the process has ended, and says why
                os.kill(workers[-1], signal.SIGKILL)
            begun = checkpoint.load(last).record["progress"] if last.exists() else {}
            out, err = process.communicate(timeout=900)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert begun["epoch"] < 3
    assert "epoch 3: " in err
    assert '"epoch": 3' in out
    assert len(workers) == 2

    spec = specs.parse(dense())
    config = TrainConfig(**SAME)
    for name in ("drawing", "curves", "regenerated"):
        monkeypatch.setattr(
            journal.pictures, name, lambda *w: next(p for p in w if isinstance(p, Path)).write_bytes(b"")
        )
    expected = Trainer(config, spec, runs.load_data(config, spec), tmp_path / "one").fit().history
    found = history(run)
    assert [row["step"] for row in found] == ["20", "40", "60"]
    for row, one in zip(found, expected, strict=True):
        for name in ("loss", "rate", "psnr", "val_loss", "val_ssim"):
            assert float(row[name]) == pytest.approx(one[name], rel=2e-3), (row["epoch"], name)


def test_options_of_a_cluster_need_the_engine(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.json")
    for option, value in (("--workers", 4), ("--address", "ray://head:10001")):
        result = attar("train", "--model", model, "-o", tmp_path / "run", option, value)
        refused(result, 2, "--workers and --address are of a Ray cluster: give --engine ray with them")


def test_an_address_that_ray_train_cannot_use_is_refused_at_once(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.json")
    words = ("train", "--engine", "ray", "--model", model, "-o", tmp_path / "run", "--address")
    refused(attar(*words, "ray://127.0.0.1:10001"), 1, "Ray Train do not run through Ray's client")
    refused(attar(*words, "127.0.0.1:9"), 1, "--address 127.0.0.1:9: nothing answers there")


def test_what_is_wrong_is_said_before_ray_starts(tmp_path: Path) -> None:
    broken = write_model(tmp_path / "broken.json", {"model": {}})
    refused(attar("train", "--engine", "ray", "--model", broken, "-o", tmp_path / "a"), 2, "layers")
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "config.json").write_text("{}")
    model = write_model(tmp_path / "model.json")
    refused(
        attar("train", "--engine", "ray", "--model", model, "-o", tmp_path / "held"), 1, "already holds a run"
    )


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    model = write_model(tmp_path / "model.json")
    result = attar("train", "--engine", "ray", "--model", model, "-o", tmp_path / "run")
    refused(result, 2, "ray is not installed: pip install 'attar[cluster]'")


def test_a_process_started_again_goes_on_where_the_run_was_saved(tmp_path: Path) -> None:
    job = jobs.Job(tmp_path, {"epochs": 4}, "model.json", weights="other.npz")
    assert job.started_again() == jobs.Job(
        tmp_path, {"epochs": 4}, "model.json", force=True, weights="other.npz"
    )
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / jobs.LAST).write_bytes(b"")
    assert job.started_again() == jobs.Job(tmp_path, {"epochs": 4}, "model.json", resume=True)
    resumed = jobs.Job(tmp_path / "elsewhere", resume=True)
    assert resumed.started_again() == resumed  # and is refused, as there is nothing to go on from


def test_a_missing_checkpoint_is_an_error_of_the_leader(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not a run of attar train"):
        jobs.prepare(jobs.Job(tmp_path, {}, resume=True), jobs.Team(), lambda data: None)
