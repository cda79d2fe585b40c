from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attar import spec
from attar.errors import TrainingError
from attar.train import checkpoint, datasets, measuring, steps, trainer
from attar.train.config import TrainConfig
from trainer_kit import files, make
from training_kit import convolutional, dense, history, numpy

pytestmark = pytest.mark.usefixtures("quick_pictures")


def test_a_run_leaves_everything_in_its_folder(tiny_run: Path) -> None:
    found = {name for name in files(tiny_run) if "tfevents" not in name}
    assert found == {
        "config.json",
        "model.json",
        "model.svg",
        "history.csv",
        "curves.png",
        "regenerated.png",
        "samples/epoch-1.png",
        "samples/epoch-2.png",
        "progress.json",
        "checkpoints/best.npz",
        "checkpoints/last.npz",
    }
    rows = history(tiny_run)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["val_loss"]) < float(rows[0]["val_loss"])
    assert float(rows[1]["step"]) == 32
    for name in ("curves.png", "regenerated.png"):
        with Image.open(tiny_run / name) as image:
            image.load()
    record = checkpoint.load(tiny_run / "checkpoints" / "best.npz").record
    assert record["validation"]["loss"] == pytest.approx(float(rows[1]["val_loss"]), rel=1e-6)
    assert record["config"] == json.loads((tiny_run / "config.json").read_text())


def test_tensorboard_gets_scalars_images_and_the_model(tiny_run: Path) -> None:
    (events,) = (tiny_run / "tensorboard").iterdir()
    content = events.read_bytes()
    for tag in (
        b"validation/psnr",
        b"validation/ssim",
        b"training/loss",
        b"regenerated",
        b"model",
        b"config",
    ):
        assert tag in content


def test_training_metrics_are_means_over_the_whole_epoch(tmp_path: Path) -> None:
    made = make(tmp_path, epochs=1, batch_size=40, limit=500)
    seen: list[tuple[int, np.ndarray]] = []
    step = made.step

    def recording(images: np.ndarray, rate: float) -> Any:
        metrics = step(images, rate)
        seen.append((len(images), numpy(metrics).astype(float)))
        return metrics

    recording.state, recording.averaged = step.state, step.averaged  # type: ignore[attr-defined]
    made.step = recording  # type: ignore[assignment]
    row = made.fit().history[0]
    sizes, values = [size for size, _ in seen], np.stack([value for _, value in seen])
    assert sizes == [40] * 12
    for name, mean, last in zip(steps.METRICS, np.average(values, 0, sizes), values[-1], strict=True):
        assert row[name] == pytest.approx(mean, rel=1e-9)
        assert row[name] != pytest.approx(last, rel=1e-3)
    assert row["bytes"] == pytest.approx(row["rate"] * 784 / 8)


def test_validation_metrics_are_means_over_all_images_not_over_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path, limit=300)
    expected = trainer.measure_split(made.network, made.loss, made.data.validation)
    monkeypatch.setattr(measuring, "VALIDATION_BATCH", 7)  # 300 is no multiple of it
    found = trainer.measure_split(made.network, made.loss, made.data.validation)
    assert found == pytest.approx(expected, rel=1e-5)


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Validation losses as told, one for each epoch."""
    left = iter(values)
    monkeypatch.setattr(
        trainer, "measure_split", lambda *_: {"loss": next(left), "rate": 0.1, "psnr": 9.0, "ssim": 0.1}
    )


def test_patience_stops_a_run_and_the_best_weights_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [1.0, 0.5, 0.7, 0.6, 0.1])
    made = make(tmp_path, epochs=9, patience=2)
    progress = made.fit()
    assert [row["val_loss"] for row in progress.history] == [1.0, 0.5, 0.7, 0.6]
    best = checkpoint.load(tmp_path / "checkpoints" / "best.npz")
    assert best.record["progress"]["epoch"] == 2
    last = checkpoint.load(tmp_path / "checkpoints" / "last.npz")
    kernel = "encoder_1_dense/kernel"
    here = numpy(made.network.named_variables()[kernel])
    np.testing.assert_array_equal(here, best.part("weights")[kernel])
    assert not np.array_equal(here, last.part("weights")[kernel])


def test_no_patience_never_stops_and_resuming_a_stopped_run_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [1.0, 2.0, 3.0, 4.0])
    assert make(tmp_path / "a", epochs=4, patience=0).fit().epoch == 4
    scripted(monkeypatch, [1.0, 2.0])
    assert make(tmp_path / "b", epochs=4, patience=1).fit().epoch == 2
    again = make(tmp_path / "b", epochs=4, patience=1)
    again.resume()
    assert again.fit().epoch == 2


def test_a_loss_that_is_no_number_stops_the_run_with_step_and_batch(tmp_path: Path) -> None:
    made = make(tmp_path, batch_size=8)
    made.watch = lambda progress: progress.batch == 4 and poison(made)
    with pytest.raises(TrainingError) as caught:
        made.fit()
    text = str(caught.value)
    assert "the loss became nan at epoch 1, step 5 of 12 (images digits/train/" in text
    assert "and 4 more)" in text
    assert "try a lower --learning-rate" in text
    assert not (tmp_path / "history.csv").exists()
    assert not (tmp_path / "checkpoints").exists()


def poison(made: trainer.Trainer) -> None:
    variable = made.network.named_variables()["decoder_1_dense/bias"]
    variable.assign(np.full(variable.shape, np.nan, "float32"))


def test_a_run_that_goes_wrong_later_keeps_its_last_sound_state(tmp_path: Path) -> None:
    made = make(tmp_path, epochs=3)
    made.watch = lambda progress: (progress.epoch, progress.batch) == (1, 1) and poison(made)
    with pytest.raises(TrainingError, match="epoch 2, step 2 of 3"):
        made.fit()
    for name in ("best.npz", "last.npz"):
        kept = checkpoint.load(tmp_path / "checkpoints" / name)
        assert all(np.isfinite(value).all() for value in kept.arrays.values())
        assert kept.record["progress"]["epoch"] == 1
    assert len(history(tmp_path)) == 1


def test_a_learning_rate_that_explodes_stops_the_run(tmp_path: Path) -> None:
    steep = dense()
    layers = steep["model"]["layers"]["generator"]["layers"]["encoder"]["layers"]
    layers[1]["Dense"]["activation"] = "exponential"
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) at epoch 1, step \d+ of 12"):
        make(tmp_path, steep, batch_size=8, learning_rate=9.0).fit()


def test_a_validation_loss_that_is_no_number_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [math.nan])
    with pytest.raises(TrainingError, match="the validation loss became nan after epoch 1, step 3 of 3"):
        make(tmp_path).fit()
    assert not (tmp_path / "checkpoints").exists()


def test_images_that_the_model_cannot_take_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="takes images of 28x28x3, the data set digits has 28x28x1"):
        make(tmp_path, convolutional(28, 3))
    odd = datasets.load("digits", limit=32, crop=26)
    config = TrainConfig(crop=26)
    with pytest.raises(
        TrainingError, match=r"sides that are multiples of 4.* has 26x26x1: give such a --crop"
    ):
        trainer.Trainer(config, spec.parse(convolutional(None, 1)), odd, tmp_path)
    assert files(tmp_path) == set()


def test_a_convolutional_model_of_open_size_trains_on_crops(tmp_path: Path) -> None:
    crops = datasets.load("digits", limit=64, crop=16)
    config = TrainConfig(crop=16, epochs=1, batch_size=16, loss="ms-ssim")
    made = trainer.Trainer(config, spec.parse(convolutional(None, 1)), crops, tmp_path)
    assert math.isfinite(made.fit().history[0]["val_loss"])


@pytest.mark.parametrize("length", [2, 5])
def test_an_epoch_may_be_shorter_or_longer_than_a_pass(tmp_path: Path, length: int) -> None:
    made = make(tmp_path, steps_per_epoch=length, epochs=3)
    found = []
    for epoch in range(3):
        made.progress.epoch = epoch
        found += [tuple(indices) for indices, _ in made._batches()]
    assert len(found) == 3 * length
    passes = [found[at : at + 3] for at in range(0, len(found) - 2, 3)]
    for whole in passes:  # every pass shows every image once, in an order of its own
        assert sorted(index for batch in whole for index in batch) == list(range(96))
    assert len({tuple(whole) for whole in passes}) == len(passes)


def test_the_best_checkpoint_goes_where_it_is_told(tmp_path: Path) -> None:
    made = make(tmp_path / "run", epochs=1, checkpoint_path=tmp_path / "x" / "b.npz", log_dir=tmp_path / "tb")
    made.fit()
    assert checkpoint.load(tmp_path / "x" / "b.npz").record["progress"]["epoch"] == 1
    assert not (tmp_path / "run" / "checkpoints" / "best.npz").exists()
    assert "tfevents" in next((tmp_path / "tb").iterdir()).name


@pytest.mark.parametrize("place", ["run", "checkpoint_path", "log_dir"])
def test_a_place_that_cannot_be_written_is_refused_before_the_first_step(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    places = {"checkpoint_path": tmp_path / "b.npz", "log_dir": tmp_path / "tb", "run": tmp_path / "run"}
    places[place] = tmp_path / "file" / "below"
    run = places.pop("run")
    made = make(run, **places, watch=lambda _: pytest.fail("it took a step"))
    with pytest.raises(TrainingError, match="cannot be written: Not a directory"):
        made.fit()
    assert files(tmp_path) == {"file"}


def test_a_run_in_bf16_is_measured_and_kept_in_float32(tmp_path: Path) -> None:
    made = make(tmp_path, bf16=True, epochs=1)
    row = made.fit().history[0]
    assert all(math.isfinite(value) for value in row.values())
    arrays = checkpoint.load(tmp_path / "checkpoints" / "best.npz").part("weights")
    assert {str(a.dtype) for name, a in arrays.items() if "seed" not in name} == {"float32"}
    plain = make(tmp_path / "other")
    plain.transfer(tmp_path / "checkpoints" / "best.npz")
    found = trainer.measure_split(plain.network, plain.loss, plain.data.validation)
    assert found["loss"] == pytest.approx(row["val_loss"], rel=0.02)
