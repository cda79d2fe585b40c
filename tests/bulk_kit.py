"""What the tests of attar bulk share: folders of mixed images, and processes that die where a test wants it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import attar
from attar.apps.bulk import table
from attar.apps.bulk.records import Row
from attar.errors import AttarError
from toy_bundle import photo

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "object_store_memory": 100_000_000}
cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
cluster.add_node(**node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
"""Starts a cluster of two nodes with a core each, prints its address, and stops it when its input ends."""

SABOTAGE = """
# Loaded by every Python that is started with this folder on PYTHONPATH.
import os, pathlib, signal, time

read_bytes, link = pathlib.Path.read_bytes, os.link
spent = pathlib.Path(__file__).parent

def first(name):
    try:
        (spent / (name + ".spent")).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def read(self):
    if "poison" in self.name or ("dies-once" in self.name and first(self.name)):
        die()
    if "hangs-once" in self.name and first(self.name):
        time.sleep(600)
    return read_bytes(self)

def linked(source, target, **more):
    if "half-written" in str(target) and first("half-written"):
        die()
    return link(source, target, **more)

pathlib.Path.read_bytes, os.link = read, linked
"""


def sabotage_in(folder: Path) -> dict[str, str]:
    """An environment in which workers die over images named poison, dies-once or half-written, or hang."""
    (folder / "sitecustomize.py").write_text(SABOTAGE, encoding="utf-8")
    return os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def sabotage(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """See :func:`sabotage_in`."""
    return sabotage_in(tmp_path_factory.mktemp("sabotage"))


def mixed(folder: Path, count: int, broken: int = 0) -> Path:
    """``count`` images of several kinds and sizes in a tree, and ``broken`` files that only look like images."""
    for number in range(count):
        place = folder / ("", "a", "a/b", "c d")[number % 4]
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(photo(16 + 8 * (number % 3), 24, seed=number))
        if number % 5 == 4:
            image = image.convert("L")
        image.save(place / f"{number:04}.{('png', 'jpg', 'bmp')[number % 3]}")
    for number in range(broken):
        whole = (folder / "0000.png").read_bytes()
        faults = (b"", b"not an image\n", whole[: len(whole) // 2], b"\x89PNG\r\n\x1a\n" + bytes(40))
        (folder / f"broken{number}.png").write_bytes(faults[number % len(faults)])
    return folder


def add(folder: Path, name: str) -> None:
    """A sound image whose name is what the sabotage looks for."""
    Image.fromarray(photo(16, 24, seed=len(name))).save(folder / name)


def bulk(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """``attar bulk`` as a process of its own."""
    words = [sys.executable, "-m", "attar", "bulk", *map(str, arguments)]
    return subprocess.run(
        words,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def rows(out: Path) -> dict[str, Row]:
    """The ledger by output."""
    return {row.output: row for row in table.read_rows(out / "ledger.csv")}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, but for the ledger's."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("ledger.")}


def expected(source: Path, model: Path) -> dict[str, bytes]:
    """What single compressions of every sound image give."""
    codec = attar.load(model, threads=1)
    files: dict[str, bytes] = {}
    for path in sorted(source.rglob("*")):
        if path.is_file():
            try:
                files[path.relative_to(source).with_suffix(".attar").as_posix()] = codec.compress(path)
            except AttarError:
                continue
    return files
