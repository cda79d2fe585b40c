"""``attar decompress --region`` and ``attar info --bits``."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import attar
import toy_bundle
from training_kit import attar as run
from training_kit import refused

START = [sys.executable, "-c", "import sys; from attar.apps.cli import main; sys.exit(main())"]


@pytest.fixture
def file(photo_bundle: Path, tmp_path: Path) -> Path:
    path = tmp_path / "photo.attar"
    path.write_bytes(attar.load(photo_bundle).compress(toy_bundle.photo(90, 130)))
    return path


def test_a_region_is_written_alone(file: Path, photo_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.png"
    result = run("decompress", file, "-m", photo_bundle, "-o", out, "--region", "70,20,40,30", "--json")
    assert result.code == 0, result.err
    assert (result.row["width"], result.row["height"]) == (40, 30)
    whole = attar.decompress(file.read_bytes(), model=photo_bundle)
    with Image.open(out) as part:
        assert np.abs(np.asarray(part).astype(int) - whole[20:50, 70:110]).max() <= 1


def test_a_region_goes_through_pipes(file: Path, photo_bundle: Path) -> None:
    command = [*START, "decompress", "-", "-o", "-", "-m", str(photo_bundle), "--region", "0, 0, 7, 5"]
    done = subprocess.run(command, input=file.read_bytes(), capture_output=True, check=True)
    with Image.open(io.BytesIO(done.stdout)) as part:
        assert part.size == (7, 5)


def test_regions_that_are_none_are_refused(file: Path, photo_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.png"
    words = ("decompress", file, "-m", photo_bundle, "-o", out, "--region")
    for region in ("1,2,3", "a,b,c,d", "1,2,3,4,5", "1.5,2,3,4", "", f"{'9' * 5000},0,1,1"):
        refused(run(*words, region), 2, "--region", "four whole numbers expected, left,top,width,height")
    for region in ("100,20,40,30", "0,0,0,5", "-1,0,5,5"):
        refused(run(*words, region), 1, "photo.attar", f"region {region}", "130 x 90 pixels (width x height)")
    assert not out.exists()


def test_info_says_where_the_bits_are(file: Path, photo_bundle: Path) -> None:
    plain = run("info", file, "--json").row
    assert "bits_map" not in plain
    row = run("info", file, "--bits", "-m", photo_bundle, "--json").row
    assert len(row["bits_per_channel"]) == 30
    assert np.shape(row["bits_map"]) == (12, 17)
    bits = sum(row["bits_per_channel"])
    assert np.sum(row["bits_map"]) == pytest.approx(bits, rel=1e-3)
    assert bits / 8 == pytest.approx(row["chunks"]["latents"], abs=8, rel=1e-3)
    words = run("info", file, "--bits", "-m", photo_bundle)
    assert "bits_per_channel" in words.out
    assert "bits_map" not in words.out
    broken = file.with_name("broken.attar")
    broken.write_bytes(file.read_bytes()[:-1])
    result = run("info", broken, "--bits", "-m", photo_bundle, "--json")
    assert result.code == 1
    assert json.loads(result.out)["ok"] is False
