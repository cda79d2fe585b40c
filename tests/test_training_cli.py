from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from attar.apps.cli import runs
from attar.errors import DatasetError
from attar.train import checkpoint
from attar.train.config import TrainConfig
from toy_bundle import digit
from training_kit import (
    FAST,
    SEED_MODEL,
    Result,
    attar,
    convolutional,
    dense,
    history,
    refused,
    start,
    unchanged,
    with_layers,
    write_model,
)

OTHERS: dict[str, Any] = {
    "dataset": "elsewhere",
    "tfds": True,
    "data_dir": "there",
    "height": 28,
    "width": 28,
    "channels": 1,
    "crop": 28,
    "shift": 2,
    "flip": True,
    "shrink": 0.75,
    "limit": 40,
    "latent_dims": 9,
    "batch_size": 7,
    "micro_batch": 4,
    "epochs": 3,
    "steps_per_epoch": 11,
    "optimizer": "soap",
    "learning_rate": 0.25,
    "schedule": "wsd",
    "warmup": 5,
    "loss": "mse",
    "weight": 2.5,
    "alpha": 0.5,
    "lmbda": 0.125,
    "balance": 0.25,
    "adversarial": "non-saturating",
    "adversarial_weight": 0.25,
    "adversarial_warmup": 6,
    "networks": "prior",
    "clip_norm": 0.0,
    "average": 0.5,
    "patience": 0,
    "seed": 12,
    "bf16": True,
    "compiled": True,
    "save_minutes": 0.5,
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The configurations of runs, which stop before they load anything."""
    configs: list[TrainConfig] = []

    def load_data(config: TrainConfig, _: Any) -> None:
        configs.append(config)
        raise DatasetError("far enough")

    monkeypatch.setattr(runs, "load_data", load_data)
    return configs


def test_every_field_of_a_configuration_is_an_option(tmp_path: Path, seen: list[TrainConfig]) -> None:
    content = dense()
    content["model"]["layers"]["discriminator"] = {"layers": [{"Flatten": {}}, {"Dense": {"units": 1}}]}
    model = write_model(tmp_path / "model.json", content)
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert OTHERS.keys() == fields
    for spelling in ("-", "_"):
        words = []
        for name, value in OTHERS.items():
            word = "compile" if name == "compiled" else name
            words += [f"--{word.replace('_', spelling)}", str(value).lower() if value is True else value]
        refused(attar("train", "--model", model, "-o", tmp_path / "run", *words), 1, "far enough")
    assert seen == [TrainConfig(**OTHERS)] * 2


def test_every_option_is_explained_with_its_default() -> None:
    text = " ".join(attar("train", "--help").out.split())
    for field in dataclasses.fields(TrainConfig):
        assert runs.option_name(field.name) in text
    assert "[default: 0.001]" in text
    assert "[default: false]" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], False),
        (["--tfds", "false"], False),
        (["--tfds", "False"], False),
        (["--tfds=false"], False),
        (["--tfds", "true"], True),
        (["--tfds", "True"], True),
        (["--tfds=1"], True),
        (["--tfds"], True),
        (["--tfds", "--dataset", "mnist"], True),
    ],
)
def test_tfds_means_what_it_says(
    model: Path, tmp_path: Path, seen: list[TrainConfig], words: list[str], expected: bool
) -> None:
    attar("train", "--model", model, "-o", tmp_path / "run", *words)
    assert [config.tfds for config in seen] == [expected]


def test_tfds_cannot_be_a_name() -> None:
    result = attar("train", "--tfds", "mnist")
    assert result.code == 2
    assert "'mnist' is not a valid boolean" in result.err


def test_the_words_of_the_seed_are_understood(tmp_path: Path, seen: list[TrainConfig]) -> None:
    words = (
        f"--model={SEED_MODEL}", "--dataset", "mnist", "--tfds", "True", "--batch_size", 16, "--learning_rate", 1e-4,
        "--latent_dims", 30, "--epochs", 2, "--log_dir", tmp_path / "tb", "--verbosity", 2,
        "--checkpoint_filepath", tmp_path / "best.npz", "--load_from_ckpt_path", "c",
    )  # fmt: skip
    refused(attar("train", *words, "-o", tmp_path / "run"), 1, "far enough")
    assert seen == [
        TrainConfig(dataset="mnist", tfds=True, batch_size=16, learning_rate=1e-4, latent_dims=30, epochs=2)
    ]


def test_an_unknown_option_suggests_the_nearest() -> None:
    result = attar("train", "--latent-dim", 3)
    assert result.code == 2
    assert "--latent-dims" in result.err.splitlines()[-1]
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-size", 0], "--batch-size is 0, expected at least 1"),
        (["--epochs", -1, "--alpha", 7], "--epochs is -1, expected at least 1; --alpha is 7.0"),
        (["--learning-rate", "nan"], "--learning-rate is nan, expected a finite number"),
        (["--seed", -1], "--seed is -1, expected 0 to 4294967295"),
        (["--channels", 2], "--channels is 2, expected 1 or 3"),
        (["--latent-dims", 0], "--latent-dims is 0"),
        (["--resume", "--force"], "--resume goes on with a run"),
        (["--resume", "--load-from-ckpt-path", "x"], "--resume goes on with a run"),
    ],
)
def test_options_out_of_range_are_usage_errors(
    model: Path, tmp_path: Path, words: list[Any], message: str
) -> None:
    with unchanged(tmp_path):
        refused(attar("train", "--model", model, "-o", tmp_path / "run", *words), 2, message)


def test_check_says_what_a_sound_model_is(tmp_path: Path) -> None:
    with unchanged(tmp_path):
        result = attar("train", "--check", "--model", SEED_MODEL, "-o", tmp_path / "run")
    assert (result.code, result.err) == (0, "")
    assert "takes images of 1 channels, 28 x 28 pixels; latent [50]" in result.out
    open_size = write_model(tmp_path / "open.json", convolutional())
    assert "any size, padded to 4; latent [6]" in attar("train", "--check", "--model", open_size).out


NOT_A_STEP = with_layers(dense(), encoder=[{"Dence": {"units": 3}}])
WRONG_ARGUMENT = with_layers(dense(), encoder=[{"Conv2D": {"filters": 3, "kernel_size": 3, "stride": 2}}])
WRONG_VALUE = with_layers(dense(), encoder=[{"Conv2D": {"filters": -3, "kernel_size": 3}}])
WRONG_SHAPE = json.loads(json.dumps(dense()).replace("[28, 28, 1]}}]}}", '[28, 28, 1]}}, {"Flatten": {}}]}}'))
MODELS: dict[str, tuple[Any, list[str]]] = {
    "not JSON": ("{\"model\": [1, 2", ["not JSON", "line 1"]),
    "not text": (b"\xff\x00\xfe", ["is not UTF-8 text"]),
    "empty": ("", ["not JSON"]),
    "a list": ([], ["object"]),
    "unknown layer": (NOT_A_STEP, ["encoder.layers[0].Dence", "unknown layer", 'did you mean "Dense"?']),
    "unknown argument": (WRONG_ARGUMENT, ["Conv2D.stride", "unknown argument", 'did you mean "strides"?']),
    "wrong value": (WRONG_VALUE, ["encoder.layers[0].Conv2D", "-3"]),
    "wrong shape": (WRONG_SHAPE, ["the decoder ends with shape", "expected the input's [28, 28, 1]"]),
    "code": (with_layers(dense(), encoder=[{"Lambda": {"function": "x"}}]), ["Lambda carries code"]),
}  # fmt: skip


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_be_built_is_refused(tmp_path: Path, name: str, check: bool) -> None:
    content, words = MODELS[name]
    path = tmp_path / "m.json"
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with unchanged(tmp_path):
        result = attar(
            "train", "--model", path, "-o", tmp_path / "run", *FAST, *(["--check"] if check else [])
        )
    refused(result, 2, str(path), *words)


def test_all_faults_of_a_model_are_reported_each_on_its_line(tmp_path: Path) -> None:
    content = with_layers(NOT_A_STEP, decoder=[{"Conv2D": {"filters": 3, "kernel_size": 3, "stride": 2}}])
    path = write_model(tmp_path / "m.json", content)
    result = attar("train", "--model", path, "--check")
    assert result.code == 2
    head, *lines = result.err.strip().splitlines()
    assert head == f"attar: {path}: 2 faults"
    assert len(lines) == 2


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    refused(attar("train", "-o", tmp_path / "run"), 2, "--model FILE is missing")
    refused(attar("train", "--model", tmp_path / "none.json"), 2, "none.json", "No such file")


def test_data_that_cannot_be_read_is_refused(model: Path, tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    for name in ("a.png", "b.jpg"):
        (broken / name).write_bytes(b"no image")
    common = ("train", "--model", model, "-o", tmp_path / "run", *FAST)
    with unchanged(tmp_path):
        refused(attar(*common, "--dataset", empty), 1, str(empty))
        refused(attar(*common, "--dataset", broken), 1, str(broken))
        refused(attar(*common, "--dataset", tmp_path / "nowhere"), 1, "nowhere", "does not exist")
        refused(attar(*common, "--crop", 14), 1, "takes images of 28x28x1", "has 14x14x1")


@pytest.mark.parametrize("option", ["--run-dir", "--log-dir", "--checkpoint-filepath"])
@pytest.mark.parametrize("place", ["below a file", "in /proc"])
def test_a_place_that_cannot_be_written_is_refused(
    model: Path, tmp_path: Path, option: str, place: str
) -> None:
    if place == "in /proc" and not Path("/proc/self").exists():
        pytest.skip("there is no /proc here")
    folder = model / "x" if place == "below a file" else Path("/proc/attar")
    target = folder / "best.npz" if option == "--checkpoint-filepath" else folder
    words = {"-o": tmp_path / "run", option: target} if option != "--run-dir" else {option: target}
    with unchanged(tmp_path):
        result = attar("train", "--model", model, *FAST, *(word for pair in words.items() for word in pair))
    refused(result, 1, str(folder), "cannot be written")


def test_a_folder_that_holds_a_run_is_not_overwritten(model: Path, tiny_run: Path) -> None:
    with unchanged(tiny_run):
        refused(
            attar("train", "--model", model, "-o", tiny_run), 1, "already holds a run", "--resume", "--force"
        )


def test_force_starts_over(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert attar("train", "--model", model, "-o", run, *FAST, "--seed", 1).code == 0
    before = history(run)
    assert attar("train", "--model", model, "-o", run, *FAST, "--seed", 2, "--force").code == 0
    assert len(history(run)) == 1
    assert history(run) != before


def test_progress_is_told_as_loud_as_is_wished(model: Path, tmp_path: Path) -> None:
    words = ("train", "--model", model, "-o", tmp_path / "run", "--limit", 64, "--epochs", 2, "-f")
    lines = attar(*words, "--verbosity", 2).err.splitlines()
    assert lines[0].startswith("data: digits: 10000 images, 64 train, 64 validation")
    assert [line.split(":")[0] for line in lines[1:]] == ["epoch 1/2", "epoch 2/2", "best"]
    assert all("bytes of latents per image" in line for line in lines[1:])
    result = attar(*words, "--verbosity", 0, "--json")
    assert result.err == ""
    assert result.row["val_loss"] > 0
    assert result.row["epoch"] in (1, 2)


def test_a_skipped_image_is_named(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(12):
        Image.fromarray(digit(seed)).save(folder / f"{seed}.png")
    (folder / "broken.png").write_bytes(b"no image")
    words = ("train", "--model", model, "-o", tmp_path / "run", "--dataset", folder, "--epochs", 1)
    result = attar(*words, "--batch-size", 4)
    assert result.code == 0
    assert "1 skipped" in result.err.splitlines()[0]
    assert "skipped: " in result.err.splitlines()[1]
    assert "broken.png" in result.err.splitlines()[1]


@pytest.mark.parametrize(
    ("backend", "words"),
    [("theano", ["KERAS_BACKEND is 'theano'", "torch, tensorflow, jax"]), ("", [])],
)
def test_a_backend_that_is_none_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, backend: str, words: list[str]
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", backend)
    result = attar("train", "--model", model, "--check")
    if words:
        refused(result, 1, *words)
    else:
        assert result.code == 0


@pytest.mark.parametrize("package", ["keras", "torch"])
def test_what_is_not_installed_is_named_with_its_command(
    model: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    found = runs.importlib.util.find_spec
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setattr(
        runs.importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )
    words = f"{package} is not installed: pip install 'attar[train]'"
    refused(attar("train", "--model", model), 2, words)


def test_ctrl_c_ends_the_command_with_130_and_one_line(model: Path, tmp_path: Path) -> None:
    words = (
        "train",
        "--model",
        model,
        "-o",
        tmp_path / "run",
        "--limit",
        2000,
        "--batch-size",
        4,
        "--epochs",
        50,
    )
    process = start(*words, "--save-minutes", 0, "--verbosity", 0)
    last, until = tmp_path / "run" / "checkpoints" / "last.npz", time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    refused(Result(process.returncode, out, err), 130, "interrupted")
    assert checkpoint.load(last).record["progress"]["batch"] > 0


def test_decompressing_loads_no_deep_learning_framework(digits_bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(digit(0)).save(tmp_path / "d.png")
    code = (
        "import sys; from attar.apps.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(sorted({'torch', 'keras', 'tensorflow', 'jax', 'onnx', 'matplotlib'} & set(sys.modules)))"
    )
    for words in (
        ["compress", "d.png", "-m", str(digits_bundle)],
        ["decompress", "d.attar", "-o", "back.png"],
    ):
        process = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path,
            env={"PATH": "", "ATTAR_MODELS": str(digits_bundle.parent)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        assert process.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "back.png").exists()
