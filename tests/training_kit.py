"""Small models, runs and tools for the tests of training; they work on every Keras backend."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SEED_MODEL = ROOT / "models" / "model.json"
FAST = ("--limit", 64, "--epochs", 1, "--warmup", 0, "--verbosity", 0)
"""Options of a run of one epoch of few steps."""
START = [sys.executable, "-c", "import sys; from attar.apps.cli import main; sys.exit(main())"]


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def row(self) -> dict[str, Any]:
        return json.loads(self.out)


def attar(*arguments: object) -> Result:
    """Run a command in this process."""
    from attar.apps.cli import main

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = int(main([str(argument) for argument in arguments]) or 0)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own, with one thread."""
    return subprocess.Popen(
        [*START, *(str(argument) for argument in arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(result: Result, code: int, *words: str) -> None:
    """One line on stderr that says all the words, nothing on stdout, and the exit code.

    Before a usage error, click says how the command is used.
    """
    assert result.code == code, result.err
    assert result.out == ""
    lines = result.err.strip().splitlines()
    if lines[0].startswith("Usage: ") and lines[-1].startswith("Error: "):
        lines = lines[-1:]
    assert len(lines) == 1, result.err
    assert lines[0].startswith(("attar: ", "Error: "))
    for word in words:
        assert word in lines[0], result.err


@contextlib.contextmanager
def unchanged(*folders: Path) -> Iterator[None]:
    """What the block does leaves the folders byte for byte as they were."""

    def content() -> list[tuple[str, bytes]]:
        found = [path for folder in folders for path in sorted(folder.rglob("*"))]
        return [(str(path), path.read_bytes() if path.is_file() else b"") for path in found]

    before = content()
    yield
    assert content() == before


def document(
    shape: list[int | None], encoder: list[dict], decoder: list[dict], **more: Any
) -> dict[str, Any]:
    """A model.json."""
    generator = {"layers": {"encoder": {"layers": encoder}, "decoder": {"layers": decoder}}}
    layers = {"inputs": [{"Input": {"shape": shape}}], "generator": generator}
    return {"model": {"name": "test", "layers": layers}, **more}


def dense(units: int | None = 12) -> dict[str, Any]:
    """Digits through one hidden layer: trains in no time."""
    return document(
        [28, 28, 1],
        [
            {"Flatten": {}},
            {"Dense": {"units": 48, "activation": "leaky_relu"}},
            {"Dense": {"units": units, "name": "compressed_representation"}},
        ],
        [
            {"Dense": {"units": 48, "activation": "leaky_relu"}},
            {"Dense": {"units": 784}},
            {"Reshape": {"target_shape": [28, 28, 1]}},
        ],
    )


def convolutional(size: int | None = None, channels: int = 3, **latent: Any) -> dict[str, Any]:
    """Two strided convolutions and their transposes: any size when ``size`` is None."""

    def layer(kind: str, filters: int, **arguments: Any) -> dict[str, Any]:
        return {kind: {"filters": filters, "kernel_size": 5, "strides": 2, "padding": "same", **arguments}}

    return document(
        [size, size, channels],
        [
            layer("Conv2D", 8, activation="leaky_relu"),
            layer("Conv2D", 6, name="compressed_representation", **latent),
        ],
        [layer("Conv2DTranspose", 8, activation="leaky_relu"), layer("Conv2DTranspose", channels)],
    )


def with_layers(
    base: dict[str, Any], encoder: list[dict] | None = None, decoder: list[dict] | None = None
) -> dict[str, Any]:
    """A model.json with layers put in before its first ones."""
    made = copy.deepcopy(base)
    blocks = made["model"]["layers"]["generator"]["layers"]
    blocks["encoder"]["layers"][:0] = encoder or []
    blocks["decoder"]["layers"][:0] = decoder or []
    return made


def write_model(path: Path, content: Any = None) -> Path:
    """Write a model.json (the dense one, unless told)."""
    path.write_text(json.dumps(dense() if content is None else content))
    return path


def build(content: dict[str, Any], seed: int = 0, **options: Any) -> Any:
    """The network of a model.json's document."""
    from attar import spec
    from attar.train import network

    return network.build(spec.parse(content), seed=seed, **options)


def numpy(tensor: Any) -> np.ndarray:
    """A tensor of any backend as an array."""
    from attar.train.tensors import to_numpy

    return to_numpy(tensor)


def gradient(function: Callable[[Any], Any], values: np.ndarray) -> np.ndarray:
    """Gradient of a scalar function of one tensor, on any backend."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(values))
    if backend == "tensorflow":
        import tensorflow as tf

        tensor = tf.constant(values)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            result = function(tensor)
        return tape.gradient(result, tensor).numpy()
    import torch

    tensor = torch.tensor(values, requires_grad=True)
    function(tensor).backward()
    assert tensor.grad is not None
    return tensor.grad.numpy()


def digits(count: int, seed: int = 0) -> np.ndarray:
    """Real digits, uint8 (count, 28, 28, 1)."""
    from attar.train import datasets

    split = datasets.load("digits").test
    return split.take(np.random.default_rng(seed).permutation(len(split))[:count])


def history(run: Path) -> list[dict[str, str]]:
    """The rows of history.csv, without the time that they took."""
    import csv

    with (run / "history.csv").open(newline="") as file:
        return [
            {key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)
        ]
