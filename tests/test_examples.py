from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(example: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_here() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == ["demo.py", "own_loop.py"]


def test_own_loop_learns() -> None:
    pytest.importorskip("torch")
    out = run("own_loop.py")
    line = r"^(step +\d+|test images): loss ([\d.]+), PSNR ([\d.]+) dB, SSIM ([\d.]+), ([\d.]+) bytes$"
    rows = [(name, *map(float, numbers)) for name, *numbers in re.findall(line, out, re.MULTILINE)]
    assert [name for name, *_ in rows] == [
        *(f"step {n:3}" for n in (1, 10, 20, 30, 40, 50, 60)),
        "test images",
    ]
    (_, first, *_), (_, last, psnr, ssim, size) = rows[0], rows[-1]
    assert last < 0.75 * first
    assert psnr > 12
    assert ssim > 0.4
    assert 5 < size < 60


def test_the_demo_goes_the_whole_way(tmp_path: Path) -> None:
    """One epoch of `make demo`: real training, real files, the table, the pictures."""
    folder = tmp_path / "demo"
    out = run("demo.py", str(folder), "1")
    found = re.search(r"PSNR ([\d.]+) dB, SSIM ([\d.]+), ([\d.]+) bytes for a whole .attar file", out)
    assert found, out
    assert float(found[1]) > 12
    assert float(found[2]) > 0.4
    assert float(found[3]) < 70
    for codec in ("attar", "png", "webp-lossless", "jpeg-opt", "webp", "avif"):
        assert re.search(rf"^  {codec} +[\d.]+ +[\d.]+ +[\d.]+|^  {codec} +absent", out, re.MULTILINE), codec
    assert len(list((folder / "compressed").glob("*.attar"))) == 8
    assert len(list((folder / "regenerated").glob("*.png"))) == 8
    for picture in ("regenerated.png", "curves.png", "model.svg", "history.csv", "checkpoints/best.npz"):
        assert (folder / "run" / picture).stat().st_size > 100
