"""The documentation is executed: README's commands and Python run as printed, its links lead somewhere."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "training").rglob("*.md")])
DIGITS = ROOT / "src" / "attar" / "data" / "digits" / "t10k-images-idx3-ubyte.gz"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with a digit and the model files: where a newcomer types the README's commands."""
    path = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "models", path / "models")
    pixels = np.frombuffer(gzip.decompress(DIGITS.read_bytes()), np.uint8, count=784, offset=16)
    Image.fromarray(pixels.reshape(28, 28)).save(path / "digit.png")
    return path


def run(words: list[str], folder: Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ATTAR_CACHE": str(folder / "cache")}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, (
        f"{shlex.join(words)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout


def test_readme_commands_run_as_printed(folder: Path) -> None:
    commands = [
        line.removeprefix("$ ")
        for block in blocks((ROOT / "README.md").read_text(encoding="utf-8"), "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    assert len(commands) >= 10
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "attar", command
        run([sys.executable, "-m", *words], folder)
    assert (folder / "digit.attar").stat().st_size <= 80
    assert (folder / "report" / "index.html").exists() or list((folder / "report").glob("*.html"))


def test_readme_python_runs_as_printed(folder: Path) -> None:
    found = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    assert found
    for block in found:
        assert "bytes for (28, 28, 1)" in run([sys.executable, "-c", block], folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [
        t
        for t in targets
        if "://" not in t and not t.startswith("mailto:") and not (page.parent / t).exists()
    ]
    assert not missing, f"{page.name} links to {missing}"


def test_a_dead_link_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("see [this](nowhere.md)", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"nowhere\.md"):
        test_links_lead_to_files(page)


def test_pages_name_no_machine() -> None:
    """Nothing in the documentation is a path of the machine it was written on."""
    for page in PAGES:
        assert not re.search(r"/(work|root|home|tmp)/", page.read_text(encoding="utf-8")), page
