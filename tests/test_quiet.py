"""Attar keeps to itself: a library that it runs on writes nothing behind its back and calls nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SWITCH = "ORT_DISABLE_TELEMETRY"
CODE = """
import attar, numpy, os, time
codec = attar.load("digits")
codec.decompress(codec.compress(numpy.zeros((28, 28, 1), numpy.uint8)))
time.sleep(1)  # what is written and sent, is so by threads
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


def home_after(home: Path, **environment: str) -> tuple[str, list[Path]]:
    """What the code printed, and what lies in its home afterwards."""
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"), str(home))
    env = {key: value for key, value in os.environ.items() if key != SWITCH} | places | environment
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.skipif(sys.platform == "win32", reason="there, the system decides what ONNX Runtime reports")
def test_coding_leaves_no_trace(tmp_path: Path) -> None:
    assert home_after(tmp_path) == ("1", [])


def test_a_users_own_choice_is_kept(tmp_path: Path) -> None:
    assert home_after(tmp_path, **{SWITCH: "true"})[0] == "true"
