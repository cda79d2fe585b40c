"""The shipped bundle `digits` keeps its promise: MNIST's whole test set, real files, decoded and compared."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import attar
from attar.measure import metrics

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    packed = (ROOT / "src/attar/data/digits/t10k-images-idx3-ubyte.gz").read_bytes()
    return np.frombuffer(gzip.decompress(packed), np.uint8, offset=16).reshape(10_000, 28, 28, 1)


@pytest.fixture(scope="module")
def measured(images: np.ndarray) -> dict[str, float]:
    codec = attar.load("digits")
    files = codec.compress_batch(list(images))
    decoded = np.stack(codec.decompress_batch(files))
    return {
        "bytes": float(np.mean([len(data) for data in files])),
        "psnr": float(metrics.psnr(images, decoded).mean()),
        "ssim": float(metrics.ssim(images, decoded).mean()),
    }


def test_beats_the_200_bytes_it_replaces(measured: dict[str, float]) -> None:
    assert measured["bytes"] <= 60
    assert measured["ssim"] > 0.979
    assert measured["psnr"] > 26.7


def test_readme_states_what_is_measured(measured: dict[str, float]) -> None:
    row = re.search(
        r"\| \*\*Attar `digits`\*\* \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|",
        (ROOT / "README.md").read_text(encoding="utf-8"),
    )
    assert row, "the README's table has no row of Attar's"
    size, ssim, psnr = map(float, row.groups())
    assert size == pytest.approx(measured["bytes"], abs=0.1)
    assert ssim == pytest.approx(measured["ssim"], abs=2e-4)
    assert psnr == pytest.approx(measured["psnr"], abs=0.02)


def test_the_bundle_is_the_seeds_model_unchanged() -> None:
    from attar import spec

    manifest = attar.load("digits").manifest
    expected = spec.load(ROOT / "models" / "model.json").with_latent_dims(50)
    assert spec.parse(dict(manifest.model)).digest() == expected.digest()
    assert manifest.latent.channels == 50
    assert manifest.training["validation_ssim"] > 0.979


def test_decompressing_a_digit_loads_no_framework(images: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "digit.attar").write_bytes(attar.load("digits").compress(images[0]))
    script = (
        "import sys; from attar.apps.cli import main\n"
        "main(['decompress', 'digit.attar', '-o', 'digit.png'])\n"
        "heavy = {'torch', 'keras', 'tensorflow', 'jax', 'matplotlib', 'onnx'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "digit.png").exists()
