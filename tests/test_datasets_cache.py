"""Large data sets of images are decoded once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from attar.errors import DatasetError
from attar.train.datasets import load
from some_images import contents, fill, members, noise, save

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def tight_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attar.train.datasets.store.MEMORY_LIMIT", 2000)


def spoil(folder: Path) -> None:
    """Overwrite every image, keeping sizes and times: whoever decodes again fails."""
    for path in folder.rglob("*.png"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.usefixtures("tight_memory")
def test_large_sets_are_decoded_once(tmp_path: Path, cache: Path) -> None:
    folder = fill(tmp_path / "set", 12)
    (folder / "broken.png").write_text("?")
    first = load(str(folder))
    (kept,) = (cache / "datasets").iterdir()
    assert first.description.endswith("1 skipped")
    assert str(first.file) == str(kept)
    expected = contents(first.train)
    assert expected <= {noise(n).tobytes() for n in range(12)}
    spoil(folder)
    again = load(str(folder))
    assert contents(again.train) == expected
    assert members(again) == members(first)
    assert again.skipped == first.skipped
    crops = load(str(fill(tmp_path / "other", 5)), crop=8)
    assert crops.train.take(np.arange(2)).shape == (2, 8, 8, 3)
    assert len(list((cache / "datasets").iterdir())) == 2


@pytest.mark.usefixtures("tight_memory")
@pytest.mark.parametrize("damage", ["cut", "index", "magic", "empty"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path, damage: str) -> None:
    folder = fill(tmp_path / "set", 12)
    expected = contents(load(str(folder)).train)
    (kept,) = (cache / "datasets").iterdir()
    data = kept.read_bytes()
    broken = {
        "cut": data[100:],
        "index": data[:-60] + b"?" + data[-59:],
        "magic": data[:-1] + b"?",
        "empty": b"",
    }[damage]
    kept.write_bytes(broken)
    assert contents(load(str(folder)).train) == expected
    assert kept.read_bytes() == data


@pytest.mark.usefixtures("tight_memory")
def test_a_changed_folder_is_decoded_anew_and_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    folder = fill(tmp_path / "set", 12)
    load(str(folder))
    save(folder / "more.png", noise(99))
    assert "13 images" in load(str(folder)).description
    assert len(list((cache / "datasets").iterdir())) == 1


@pytest.mark.usefixtures("tight_memory")
def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "set", 12)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        DatasetError, match=r"could not be kept in .*file.*set ATTAR_CACHE to a folder with more room"
    ):
        load(str(folder))


@pytest.mark.usefixtures("tight_memory")
def test_nothing_half_written_stays_behind(tmp_path: Path, cache: Path) -> None:
    folder = fill(tmp_path / "set", 12)
    save(folder / "zz.png", noise(0, 50, 50))  # found only after the first image was written
    with pytest.raises(DatasetError, match="different sizes"):
        load(str(folder))
    assert list((cache / "datasets").iterdir()) == []


def test_small_sets_write_no_cache(tmp_path: Path, cache: Path) -> None:
    load(str(fill(tmp_path / "set", 12)))
    assert not cache.exists()
