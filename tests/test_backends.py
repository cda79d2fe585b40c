"""Keras's other backends, each in a process of its own: the same tests, and checkpoints that cross over."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from attar import spec as specs
from attar.train import checkpoint, export
from training_kit import attar, digits, history, numpy, refused, start, write_model

TESTS = Path(__file__).parent
OTHERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(name) is None, reason=f"{name} is not installed: pip install {name}"
        ),
    )
    for name in ("tensorflow", "jax")
]
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}


SAME = ("test_layers.py", "test_losses.py", "test_steps.py")


def begin(backend: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python on another backend; stdout and stderr are one."""
    return subprocess.Popen(
        [sys.executable, *(str(argument) for argument in arguments)],
        cwd=TESTS,
        env={**os.environ, **QUIET, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> str:
    """What it wrote, once it has ended well."""
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out[-10000:]
    return out


@pytest.fixture(scope="module")
def same_tests() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The same tests, begun on all backends at once: most of their time is spent importing and compiling."""
    # The libraries' own modules warn of each other's deprecations.
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning", *SAME)
    names = [str(param.values[0]) for param in OTHERS if not param.marks[0].args[0]]
    begun = {name: begin(name, *words) for name in names}
    yield begun
    for process in begun.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("backend", OTHERS)
def test_layers_losses_and_steps_pass_the_same_tests(
    backend: str, same_tests: dict[str, subprocess.Popen[str]]
) -> None:
    out = end(same_tests[backend])
    assert " passed" in out
    assert "skipped" not in out


FORWARD = """
import sys
import keras, numpy as np
from attar import spec as specs
from attar.train import checkpoint, export, losses, steps
from training_kit import numpy

assert keras.backend.backend() == sys.argv[1]
net, kept = export.load_network(specs.parse(checkpoint.load(sys.argv[2]).record["model"]), sys.argv[2])
with np.load(sys.argv[3]) as given:
    forward = net(given["images"], training=False)
    np.testing.assert_allclose(numpy(forward.regenerated), given["regenerated"], atol=1e-4)
    np.testing.assert_array_equal(numpy(forward.symbols), given["symbols"])
    np.testing.assert_allclose(numpy(forward.bits), given["bits"], rtol=1e-4)
    step = steps.make_step(net, losses.Loss(lmbda=0.02))
    found = [float(numpy(step(given["images"], 1e-3))[0]) for _ in range(8)]
    assert found[-1] < found[0], found
checkpoint.save(sys.argv[4], checkpoint.weights(net), kept.record)
"""


@pytest.mark.parametrize("backend", OTHERS)
def test_a_checkpoint_of_pytorch_gives_the_same_there_and_goes_back(
    backend: str, tiny_run: Path, tmp_path: Path
) -> None:
    best = tiny_run / "checkpoints" / "best.npz"
    model = specs.parse(checkpoint.load(best).record["model"])
    net, _ = export.load_network(model, best)
    forward = net(images := digits(32), training=False)
    np.savez(
        tmp_path / "given.npz",
        images=images,
        regenerated=numpy(forward.regenerated),
        symbols=numpy(forward.symbols),
        bits=numpy(forward.bits),
    )
    end(begin(backend, "-c", FORWARD, backend, best, tmp_path / "given.npz", tmp_path / "back.npz"))
    back, _ = export.load_network(model, tmp_path / "back.npz")
    assert not np.array_equal(numpy(back(images).regenerated), numpy(forward.regenerated))


@pytest.mark.parametrize("backend", OTHERS)
def test_a_run_trains_stops_and_goes_on_there(backend: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.json")
    words = ("train", "--model", model, "--limit", 96, "--warmup", 0, "--average", 0.5, "--verbosity", 0)
    environment = {**QUIET, "KERAS_BACKEND": backend, "PYTHONWARNINGS": "ignore"}
    for run_dir, more in (
        ("whole", ("--epochs", 2, "--schedule", "constant")),
        ("half", ("--epochs", 1, "--schedule", "constant")),
    ):
        process = start(*words, "-o", tmp_path / run_dir, *more, **environment)
        assert (process.communicate(timeout=600)[0], process.returncode) == ("", 0)
    half = tmp_path / "half"
    kept = {name: (half / name).read_bytes() for name in ("config.json", "checkpoints/last.npz")}
    assert checkpoint.load(half / "checkpoints" / "last.npz").record["backend"] == backend
    words = ("train", "--resume", "-o", half, "--epochs", 2, "--verbosity", 0)
    refused(attar(*words), 4, "cannot be resumed", f"it was made with KERAS_BACKEND={backend}")
    assert {name: (half / name).read_bytes() for name in kept} == kept
    process = start(*words, **environment)
    assert (process.communicate(timeout=600)[0], process.returncode) == ("", 0)
    assert history(half) == history(tmp_path / "whole")
    # Its checkpoint is measured and exported on PyTorch.
    row = attar("validate", "--ckpt-path", half / "checkpoints" / "best.npz", "--limit", 20, "--json").row
    assert row["bytes"] > 0
    assert row["loss"] < 1


def test_the_other_backends_are_known_to_the_command_line() -> None:
    from attar.apps.cli import runs

    assert {"torch", *(param.values[0] for param in OTHERS)} == set(runs.BACKENDS)
