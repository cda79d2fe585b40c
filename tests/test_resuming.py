from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attar.errors import CheckpointError
from attar.train import checkpoint, trainer
from attar.train.interrupt import Interrupted, deferred
from trainer_kit import equal, files, interrupting_at, make, weights
from training_kit import convolutional, dense, history, numpy, start, with_layers, write_model

# Everything that has a state of its own: noise, dropout, statistics, moments, the average, crops.
RESTLESS = with_layers(
    dense(), encoder=[{"BatchNormalization": {"momentum": 0.9}}, {"Dropout": {"rate": 0.1}}]
)
OPTIONS = ("--limit", 640, "--batch-size", 8, "--epochs", 2, "--average", 0.9, "--shift", 1, "--seed", 5)
pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupts, in a process of its own."""
    folder = tmp_path_factory.mktemp("reference")
    model = write_model(folder / "model.json", RESTLESS)
    process = start("train", "--model", model, "-o", folder / "run", *OPTIONS, "--verbosity", 0)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err) == (0, "", "")
    return folder


def stop_inside_the_first_epoch(reference: Path, run: Path, stop: signal.Signals) -> subprocess.Popen[str]:
    """The same run, stopped when it has saved its state but not finished an epoch."""
    model = reference / "model.json"
    process = start("train", "--model", model, "-o", run, *OPTIONS, "--save-minutes", 0, "--verbosity", 0)
    last, until = run / "checkpoints" / "last.npz", time.monotonic() + 240
    while not last.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(stop)
    process.communicate(timeout=120)
    progress = checkpoint.load(last).record["progress"]
    assert progress["epoch"] == 0
    assert 0 < progress["batch"] < 80
    assert progress["images"] == 8 * progress["batch"]
    assert not (run / "history.csv").exists()
    return process


@pytest.mark.parametrize(
    ("stop", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)]
)
def test_a_stopped_run_goes_on_to_the_numbers_of_one_that_was_not(
    reference: Path, tmp_path: Path, stop: signal.Signals, code: int
) -> None:
    run = tmp_path / "run"
    assert stop_inside_the_first_epoch(reference, run, stop).returncode == code
    process = start("train", "--resume", "-o", run, "--verbosity", 0)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert history(run) == history(reference / "run")
    for name in ("best.npz", "last.npz"):
        found, expected = (weights(folder / "checkpoints" / name) for folder in (run, reference / "run"))
        assert equal(found, expected), name
    left_over = [name for name in files(run) if Path(name).name.startswith(".")]
    assert stop is signal.SIGKILL or left_over == []


def test_an_interrupted_epoch_keeps_every_step_it_took(tmp_path: Path) -> None:
    """Metrics that wait for their turn to be looked at are not lost."""
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "a", epochs=1, batch_size=8, watch=interrupting_at(5)).fit()
    progress = checkpoint.load(tmp_path / "a" / "checkpoints" / "last.npz").record["progress"]
    assert (progress["batch"], progress["images"]) == (5, 40)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = make(tmp_path / "a", epochs=1, batch_size=8)
    again.resume()
    row = again.fit().history[0]
    expected = make(tmp_path / "b", epochs=1, batch_size=8).fit().history[0]
    assert {**row, "seconds": 0} == {**expected, "seconds": 0}


def test_an_interruption_of_the_validation_repeats_only_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = trainer.measure_split

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return measured(*arguments)

    monkeypatch.setattr(trainer, "measure_split", interrupted)
    with pytest.raises(Interrupted):
        make(tmp_path / "a", average=0.5).fit()
    monkeypatch.undo()
    progress = checkpoint.load(tmp_path / "a" / "checkpoints" / "last.npz").record["progress"]
    assert (progress["epoch"], progress["batch"], progress["waited"]) == (0, 3, 0)
    again = make(tmp_path / "a", average=0.5)
    again.resume()
    again.fit()
    make(tmp_path / "b", average=0.5).fit()
    assert history(tmp_path / "a") == history(tmp_path / "b")


def test_the_second_interruption_is_raised_at_once() -> None:
    import threading

    event = threading.Event()
    with deferred(event):
        signal.raise_signal(signal.SIGINT)
        assert event.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_is_left_alone() -> None:
    import threading

    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        with deferred(threading.Event()):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]


def test_transfer_begins_with_the_other_run_s_weights(tiny_run: Path, tmp_path: Path) -> None:
    best = tiny_run / "checkpoints" / "best.npz"
    made = make(tmp_path, limit=512)
    fresh = trainer.measure_split(made.network, made.loss, made.data.validation)
    made.transfer(best)
    found = trainer.measure_split(made.network, made.loss, made.data.validation)
    assert found == pytest.approx(checkpoint.load(best).record["validation"], rel=1e-5)
    assert found["loss"] < fresh["loss"]
    assert (made.progress.epoch, made.progress.history) == (0, [])


def test_transfer_begins_the_average_anew(tiny_run: Path, tmp_path: Path) -> None:
    made = make(tmp_path, average=0.9)
    made.transfer(tiny_run / "checkpoints" / "best.npz")
    kernel = "encoder_1_dense/kernel"
    here = numpy(made.network.named_variables()[kernel])
    np.testing.assert_array_equal(made.step.state()[f"average/{kernel}"], here)


def test_transfer_from_another_model_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    made = make(tmp_path, convolutional(28, 1))
    with pytest.raises(CheckpointError, match="checkpoint of another model"):
        made.transfer(tiny_run / "checkpoints" / "best.npz")


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run with one of two epochs done."""
    make(tmp_path, epochs=1).fit()
    return tmp_path


def rewritten(run: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], Any]) -> None:
    last = run / "checkpoints" / "last.npz"
    kept = checkpoint.load(last)
    record, arrays = json.loads(json.dumps(dict(kept.record))), dict(kept.arrays)
    change(record, arrays)
    checkpoint.save(last, arrays, record)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r, a: r["progress"].update(batch="x"), "its progress is damaged"),
        (lambda r, a: r["progress"].update(colour=1), "its progress is damaged: .*colour"),
        (lambda r, a: r["progress"].update(batch=99), "its progress is damaged"),
        (lambda r, a: r["progress"].update(sums=[1, 2]), "its progress is damaged"),
        (lambda r, a: r["progress"].update(history=[]), "its progress is damaged"),
        (lambda r, a: r["progress"].update(history=[5]), "its progress is damaged"),
        (lambda r, a: r["progress"].update(history=[{"val_loss": "low"}]), "its progress is damaged"),
        (lambda r, a: r["progress"].update(steps_per_epoch=7), "an epoch had 7 steps and now has 3"),
        (lambda r, a: r.update(digest="0"), "checkpoint of another model"),
        (lambda r, a: [a.pop(n) for n in list(a) if "exp_avg" in n], "optimizer's state of .* is incomplete"),
        (
            lambda r, a: (r.update(backend="jax"), [a.pop(n) for n in list(a) if n.startswith("opt")]),
            r"holds no state of PyTorch's optimizer \(it was made with KERAS_BACKEND=jax\)",
        ),
        (lambda r, a: a.update({"random/torch": np.zeros(3, np.uint8)}), "random generator is damaged"),
    ],
)
def test_a_state_that_cannot_be_gone_on_from_is_refused(
    stopped: Path, change: Callable[[Any, Any], Any], words: str
) -> None:
    rewritten(stopped, change)
    with pytest.raises(CheckpointError, match=words) as caught:
        make(stopped).resume()
    assert str(caught.value).startswith(str(stopped / "checkpoints" / "last.npz"))


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.npz: no such checkpoint"):
        make(tmp_path).resume()


def test_resuming_with_other_data_is_refused(stopped: Path) -> None:
    with pytest.raises(CheckpointError, match="the data set or the options have changed"):
        make(stopped, limit=200).resume()


def test_a_new_run_in_an_old_folder_forgets_the_old_one(stopped: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(stopped, seed=3, watch=interrupting_at(1)).fit()
    assert not (stopped / "history.csv").exists()
    assert not (stopped / "checkpoints" / "best.npz").exists()
    assert checkpoint.load(stopped / "checkpoints" / "last.npz").record["progress"]["epoch"] == 0
