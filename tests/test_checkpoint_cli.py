from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from attar.train import checkpoint
from training_kit import (
    FAST,
    attar,
    dense,
    history,
    refused,
    unchanged,
    with_layers,
    write_model,
)


def damaged(path: Path, source: Path) -> Path:
    data = source.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def test_checkpoints_that_do_not_fit_are_refused(best: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.json")
    other = write_model(tmp_path / "o.json", dense(7))
    half = damaged(tmp_path / "half.npz", best)
    run, common = tmp_path / "run", ("train", "-o", tmp_path / "run", *FAST, "--load-from-ckpt-path")
    with unchanged(tmp_path):
        refused(
            attar(*common, best, "--model", other), 4, str(best), "checkpoint of another model", "[48, 12]"
        )
        refused(attar(*common, half, "--model", model), 4, str(half), "not a checkpoint of Attar, or damaged")
        refused(attar(*common, tmp_path, "--model", model), 4, "is a folder")
        refused(attar(*common, tmp_path / "none.npz", "--model", model), 4, "no such checkpoint")
        refused(attar(*common, model, "--model", model), 4, "not a checkpoint of Attar")
    assert not run.exists()


def test_transfer_starts_from_the_weights(best: Path, model: Path, tmp_path: Path) -> None:
    words = ("train", "--model", model, *FAST, "--learning-rate", 1e-9)
    for name, more in {"fresh": (), "transferred": ("--load-from-ckpt-path", best)}.items():
        assert attar(*words, "-o", tmp_path / name, *more).code == 0
    fresh, transferred = (float(history(tmp_path / name)[0]["val_loss"]) for name in ("fresh", "transferred"))
    assert transferred < 0.95 * fresh


def test_resuming_refuses_other_options_and_goes_on_with_its_own(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    common = ("train", "--resume", "-o", run)
    with unchanged(run):
        refused(attar(*common, "--learning-rate", 0.5), 2, "--learning-rate is 0.003 there, not 0.5")
        refused(attar(*common, "--seed", 1, "--epochs", 9), 2, "--seed is 0 there, not 1")
    result = attar(*common, "--epochs", 3, "--learning-rate", 3e-3, "--verbosity", 0, "--json")
    assert (result.code, result.err) == (0, "")
    assert [row["epoch"] for row in history(run)] == ["1", "2", "3"]
    assert history(run)[:2] == history(tiny_run)
    assert result.row["checkpoint"] == str(run / "checkpoints" / "best.npz")
    assert json.loads((run / "config.json").read_text())["epochs"] == 3


def test_what_cannot_be_resumed_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", write_model(tmp_path / "o.json", dense(7))
    shutil.copytree(tiny_run, run)
    last = run / "checkpoints" / "last.npz"
    with unchanged(tmp_path):
        refused(
            attar("train", "--resume", "-o", tmp_path / "none"), 1, "not a run of attar train: config.json"
        )
        result = attar("train", "--resume", "-o", run, "--model", other, "--verbosity", 0)
        refused(result, 4, str(last), "checkpoint of another model")
    damaged(last, tiny_run / "checkpoints" / "last.npz")
    refused(attar("train", "--resume", "-o", run, "--verbosity", 0), 4, str(last), "damaged")
    last.unlink()
    refused(attar("train", "--resume", "-o", run, "--verbosity", 0), 4, str(last), "no such checkpoint")
    (run / "config.json").write_text('{"epoch": 3}')
    refused(attar("train", "--resume", "-o", run), 1, "unknown training option", "did you mean 'epochs'?")


def test_validation_measures_real_files(best: Path, tmp_path: Path) -> None:
    words = ("validate", "--ckpt-path", best, "--limit", 50)
    row = attar(*words, "--json").row
    assert (row["split"], row["images"]) == ("test", 50)
    assert row["bpp"] == pytest.approx(8 * row["bytes"] / 784)
    result = attar(*words, "--split", "validation", "--log-dir", tmp_path / "tb")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("validation: 50 images, loss ")
    assert any("tfevents" in path.name for path in (tmp_path / "tb").iterdir())
    other = attar(*words, "--json", "--loss", "mse", "--weight", 0.5).row
    assert other["loss"] != row["loss"]
    assert other["bytes"] == row["bytes"]


def test_validation_refuses_what_does_not_fit(best: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "o.json", with_layers(dense(), encoder=[{"Dropout": {"rate": 0.1}}]))
    same = write_model(tmp_path / "s.json", dense(None))
    half = damaged(tmp_path / "half.npz", best)
    words = ("validate", "--limit", 20, "--ckpt-path")
    assert attar(*words, best, "--model", same).code == 0
    with unchanged(tmp_path):
        refused(attar(*words, best, "--model", other), 4, str(best), "checkpoint of another model")
        refused(attar(*words, best, "--latent-dims", 5), 4, str(best), "checkpoint of another model")
        refused(attar(*words, half), 4, str(half), "damaged")
        refused(attar(*words, best, "--dataset", tmp_path / "none"), 1, "does not exist")
        refused(attar(*words, best, "--height", 14, "--width", 14), 1, "has 14x14x1")
        refused(attar(*words, best, "--batch-size", 0), 2, "--batch-size is 0")
        refused(attar(*words, best, "--log-dir", other / "x"), 1, "cannot be written")


def rewritten(path: Path, source: Path, **changes: Any) -> Path:
    kept = checkpoint.load(source)
    checkpoint.save(path, kept.arrays, {**kept.record, **changes})
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": {"epochs": "many"}}, ["epochs is 'many'", "damaged, or of a later version"]),
        ({"config": {"colour": 1}}, ["unknown training option"]),
        ({"model": {}}, ["its model", "model is missing"]),
    ],
)
def test_a_forged_record_is_refused(best: Path, tmp_path: Path, changes: Any, words: list[str]) -> None:
    forged = rewritten(tmp_path / "f.npz", best, **changes)
    code = 2 if "model" in changes else 4
    refused(attar("validate", "--ckpt-path", forged), code, str(forged), *words)
    refused(attar("export", "--ckpt-path", forged, "--save-path", tmp_path / "x"), code, str(forged), *words)


@pytest.mark.parametrize("progress", [{"history": 5}, {"history": [7]}, {"history": {"a": 1}}])
def test_a_forged_history_is_refused(best: Path, tmp_path: Path, progress: Any) -> None:
    forged = rewritten(tmp_path / "f.npz", best, progress=progress)
    target = tmp_path / "x.attarmodel"
    refused(
        attar("export", "--ckpt-path", forged, "--save-path", target), 4, "record of its training is damaged"
    )
    assert not target.exists()


def test_export_refuses_what_it_cannot_do(best: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken.attarmodel"
    taken.write_text("precious")
    other = write_model(tmp_path / "o.json", with_layers(dense(), encoder=[{"Dropout": {"rate": 0.1}}]))
    half = damaged(tmp_path / "half.npz", best)
    words = ("export", "--ckpt-path", best, "--save-path")
    pair, free = f"{tmp_path}/a.onnx,{tmp_path}/b.onnx", tmp_path / "free"
    with unchanged(tmp_path):
        refused(attar(*words, taken), 1, str(taken), "exists already; overwrite it with -f")
        refused(attar(*words, pair), 2, "a bundle is one file")
        refused(attar(*words, free, "--format", "keras"), 2, "a bundle is one file of its own format")
        refused(attar(*words, ","), 2, "a bundle is one file")
        refused(attar(*words, pair, "--mode", "full"), 1, "mode full writes 1 file, got 2 paths")
        refused(attar(*words, free, "--mode", "encoder-decoder"), 1, "writes 2 files, got 1 path")
        refused(attar(*words, free, "--mode", "full"), 1, "expected a name that ends in .onnx")
        refused(attar(*words, free, "--model", other), 4, "checkpoint of another model")
        refused(attar(*words, taken / "x.attarmodel"), 1, "cannot be written")
        refused(attar(*words, free, "--name", "two words"), 1, "name is 'two words'")
        refused(attar("export", "--ckpt-path", half, "--save-path", free), 4, "damaged")
    assert attar(*words, taken, "-f").code == 0
