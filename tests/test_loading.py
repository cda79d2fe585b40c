"""What is loaded, and when: nothing heavy before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "keras",
    "torch",
    "tensorflow",
    "jax",
    "onnxruntime",
    "onnx",
    "matplotlib",
    "fastapi",
    "starlette",
    "ray",
}


def python(code: str) -> str:
    """The output of a fresh interpreter, in which nothing that a test imported is loaded."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(code: str) -> set[str]:
    """Top-level modules in sys.modules after running the code."""
    marker = "loaded:"
    out = python(
        f"{code}\nimport sys; print(); print({marker!r}, *{{name.split('.')[0] for name in sys.modules}})"
    )
    return set(out.rsplit(marker, 1)[1].split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_by("import attar")
    assert "attar" in loaded
    assert not loaded & (HEAVY | {"numpy", "PIL", "click", "rich"})


def test_help_loads_nothing_heavy() -> None:
    loaded = loaded_by("from attar.apps.cli import main\nmain(['--help'])")
    assert "click" in loaded
    assert not loaded & (HEAVY | {"numpy", "PIL", "rich"})


def test_coding_loads_no_deep_learning_framework(digits_bundle: Path) -> None:
    code = f"""
import attar, numpy
codec = attar.load({str(digits_bundle)!r})
assert codec.decompress(codec.compress(numpy.zeros((28, 28, 1), numpy.uint8))).shape == (28, 28, 1)
"""
    loaded = loaded_by(code)
    assert {"onnxruntime", "constriction"} <= loaded
    assert not loaded & (HEAVY - {"onnxruntime"})


@pytest.mark.parametrize("library", ["json", "click"])
def test_the_probe_sees_what_was_loaded(library: str) -> None:
    assert library not in loaded_by("pass")
    assert library in loaded_by(f"def f():\n    import {library}\nf()")


def cpu_of(command: list[str]) -> float:
    """Seconds of CPU of a command and its children, the least of several runs."""
    resource = pytest.importorskip("resource", reason="CPU time of children needs POSIX")
    used = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(used)


def test_help_answers_at_once() -> None:
    script = Path(sys.executable).with_name("attar.exe" if os.name == "nt" else "attar")
    assert cpu_of([str(script), "--help"]) < 0.3


def test_the_clock_runs() -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    assert 0.4 <= cpu_of([sys.executable, "-c", burn]) < 2
