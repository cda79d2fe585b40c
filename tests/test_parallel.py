"""Several processes that share a run: real ones, started by torchrun, and the parts of it that one process can show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from attar import spec as specs
from attar.apps.cli import runs
from attar.errors import TrainingError
from attar.train import checkpoint, datasets, journal, parallel
from attar.train.config import TrainConfig
from attar.train.parallel import ALONE, EndedError, Team, joined
from attar.train.trainer import Trainer
from training_kit import START, convolutional, history, write_model

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="several processes train on PyTorch only"
)

CONTENT = convolutional(28, 1)
CONTENT["model"]["layers"]["discriminator"] = {"layers": [{"Flatten": {}}, {"Dense": {"units": 1}}]}
SAME = {"limit": 320, "batch_size": 16, "shift": 1, "average": 0.9, "seed": 5}
OPTIONS = (
    *(word for name, value in SAME.items() for word in (f"--{name.replace('_', '-')}", value)),
    "--verbosity",
    0,
)


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty drawings in this process; the others draw."""

    def empty(*words: Any) -> None:
        next(word for word in words if isinstance(word, Path)).write_bytes(b"")

    for name in ("drawing", "curves", "regenerated"):
        monkeypatch.setattr(journal.pictures, name, empty)


def together(count: int, *arguments: object, restarts: int = 0) -> subprocess.Popen[str]:
    """Start a command in ``count`` processes of one run."""
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count))
    launch += ("--max-restarts", str(restarts))
    words = [sys.executable, *launch, "--no-python", *START, *map(str, arguments)]
    return subprocess.Popen(
        words,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ours(err: str) -> list[str]:
    """What the processes said, without what torchrun says of them."""
    return [line for line in err.splitlines() if line.startswith(("attar: ", "data: ", "epoch ", "best: "))]


def alone(run: Path, **options: Any) -> Trainer:
    """The same run in this process."""
    config = TrainConfig(**{**SAME, "epochs": 1, "adversarial_warmup": 10, **options})
    spec = specs.parse(CONTENT)
    return Trainer(config, spec, runs.load_data(config, spec), run)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 steps with a discriminator, taken by two processes."""
    folder = tmp_path_factory.mktemp("parallel")
    model = write_model(folder / "model.json", CONTENT)
    words = ("train", "--model", model, *OPTIONS, "--epochs", 1, "--adversarial-warmup", 10)
    process = together(2, *words, "-o", folder / "run")
    out, err = process.communicate(timeout=400)
    assert (process.returncode, out, ours(err)) == (0, "", []), err
    return folder / "run"


def test_two_processes_take_the_steps_of_one(two: Path, tmp_path: Path) -> None:
    made = alone(tmp_path)
    (expected,) = made.fit().history
    (found,) = history(two)
    assert found["step"] == "20"
    for name in found:
        assert float(found[name]) == pytest.approx(expected[name], rel=1e-5), name
    mine, theirs = (checkpoint.load(run / "checkpoints" / "last.npz").arrays for run in (tmp_path, two))
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        if key.startswith(("weights/", "average/", "discriminator/weights/")):
            np.testing.assert_allclose(theirs[key], value, rtol=1e-3, atol=2e-5, err_msg=key)
    names = [{p.name for p in run.rglob("*") if "tfevents" not in p.name} for run in (tmp_path, two)]
    assert names[0] - {"rivals.json"} == names[1]  # what the leader wrote, and no more
    assert len([*(two / "tensorboard").iterdir()]) == 1


@pytest.mark.parametrize("change", [{"batch_size": 8}, {"seed": 6}])
def test_the_bound_has_teeth(two: Path, tmp_path: Path, change: dict[str, int]) -> None:
    """With half of the images, or with other noise, the numbers differ by far more."""
    (found,), (other,) = history(two), alone(tmp_path, steps_per_epoch=20, **change).fit().history
    assert abs(other["loss"] / float(found["loss"]) - 1) > 1e-3


def test_a_killed_process_and_ctrl_c_cost_nothing(two: Path, tmp_path: Path) -> None:
    """torchrun starts the group again, which goes on; interrupted, one process goes on from it to the same numbers."""
    run, words = tmp_path / "run", ("--steps-per-epoch", 150, "--epochs", 1, "--save-minutes", 0)
    process = together(2, "train", "--model", two / "model.json", *OPTIONS, *words, "-o", run, restarts=1)
    last, until = run / "checkpoints" / "last.npz", time.monotonic() + 400

    def saved(least: int) -> int:
        """Steps in the last checkpoint, once there are so many."""
        while process.poll() is None and time.monotonic() < until:
            done = checkpoint.load(last).record["progress"]["batch"] if last.exists() else 0
            if done >= least:
                return int(done)
            time.sleep(0.01)
        raise AssertionError(process.communicate(timeout=60))

    begun = saved(20)
    (lost,) = (child for child in children(process.pid) if b"RANK=1" in environment(child))
    os.kill(lost, signal.SIGKILL)
    while lost in children(process.pid):
        time.sleep(0.01)
    assert saved(checkpoint.load(last).record["progress"]["batch"] + 20) > begun
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert ours(err)[-1] == "attar: interrupted", err
    kept = checkpoint.load(last).record["progress"]
    assert kept["images"] == 16 * kept["batch"] > 0
    assert kept["epoch"] == 0
    again = alone(run, steps_per_epoch=150, adversarial_warmup=0, save_minutes=0.0)
    again.resume()
    whole = alone(tmp_path / "whole", steps_per_epoch=150, adversarial_warmup=0)
    (row,), (expected,) = again.fit().history, whole.fit().history
    for name in ("loss", "rate", "val_loss", "val_ssim", "discriminator"):
        assert row[name] == pytest.approx(expected[name], rel=2e-3), name


def children(parent: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{parent}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def environment(process: int) -> list[bytes]:
    return Path(f"/proc/{process}/environ").read_bytes().split(b"\0")


def test_a_fault_is_told_once_and_ends_all(two: Path, tmp_path: Path) -> None:
    process = together(
        2, "train", "--model", two / "model.json", *OPTIONS, "--batch-size", 15, "-o", tmp_path / "r"
    )
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert ours(err) == [
        "attar: 2 processes cannot share a batch of 15 images equally: "
        "expected a --batch-size that is a multiple of 2"
    ]
    assert not (tmp_path / "r" / "history.csv").exists()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_shares_of_a_batch_make_the_batch(size: int) -> None:
    data = datasets.load("digits", limit=64, shift=2, flip=True).train
    whole = [*datasets.batches(data, 16, seed=3, epoch=1)]
    parts = [[*datasets.batches(data, 16, seed=3, epoch=1, share=(rank, size))] for rank in range(size)]
    for number, (indices, images) in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([part[number][1] for part in parts]), images)
        assert all(np.array_equal(part[number][0], indices) for part in parts)


def test_crops_are_shared_too(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(12):
        image = rng.integers(0, 256, (20 + number, 31, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    data = datasets.load(str(tmp_path), crop=8, flip=True).train
    whole = [images for _, images in datasets.batches(data, 6, seed=1)]
    for number, images in enumerate(whole):
        half = len(images) // 2
        for rank, expected in ((0, images[:half]), (1, images[half:])):
            found = [images for _, images in datasets.batches(data, 6, seed=1, share=(rank, 2))]
            np.testing.assert_array_equal(found[number], expected)


def test_what_is_drawn_for_a_batch_is_shared_by_rows() -> None:
    drawn: dict[str, Any] = {"quality": None, "noise": [np.arange(8), np.arange(16).reshape(8, 2)]}
    shared = [Team(rank, 4).share(drawn)["noise"] for rank in range(4)]
    for place, values in enumerate(drawn["noise"]):
        np.testing.assert_array_equal(np.concatenate([noise[place] for noise in shared]), values)
    assert Team(0, 4).share(drawn)["quality"] is None
    assert ALONE.share(drawn) is drawn


@pytest.mark.usefixtures("one_of_one")
def test_a_launcher_s_only_process_is_a_team_of_one(tmp_path: Path) -> None:
    import torch

    with joined() as team:
        assert (team.rank, team.size, team.leads) == (0, 1, True)
        assert not team.any(False)
        assert team.any(True)
        assert team.tell(b"words") == b"words"
        with team.files(tmp_path) as folder:
            assert folder == tmp_path
        tensor = torch.tensor([1.0, 2.0])
        team.average([tensor])
        assert tensor.tolist() == [1.0, 2.0]
        assert team.first(lambda: 5) == 5
    assert not torch.distributed.is_initialized()


@pytest.fixture
def one_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in {**words, "TORCHELASTIC_RUN_ID": "test"}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("one_of_one")
def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(TrainingError, match="train on PyTorch only, and KERAS_BACKEND is jax"), joined():
        pass


def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in parallel.SET_BY_TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    with joined() as team:
        assert team == ALONE


def test_a_fault_that_all_find_is_said_by_the_leader() -> None:
    assert type(Team(0, 2).fault("words")) is TrainingError
    assert isinstance(Team(1, 2).fault("words"), EndedError)
    ALONE.check_batch(7)
    with pytest.raises(TrainingError, match="4 processes cannot share a batch of 6 images equally"):
        Team(0, 4).check_batch(6)
