"""The shipped photo bundles keep their promise on the embedded photographs: real files, decoded and compared."""

from __future__ import annotations

import io
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import attar
from attar.codec import bundle
from attar.measure import metrics

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))
QUALITIES = (1, 20, 40, 60, 80, 100)


def photograph(name: str, height: int = 320, width: int = 448) -> np.ndarray:
    with Image.open(ROOT / "src/attar/data/photos" / name) as image:
        return np.asarray(image.convert("RGB"))[:height, :width].copy()


@pytest.fixture(scope="module", params=["photo", "photo-msssim"])
def codec(request: pytest.FixtureRequest) -> attar.Codec:
    return attar.load(request.param, threads=1)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(metrics.psnr(a[None], b[None])[0])


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """In decibels, which are far from linear in bytes but no further than PSNR is."""
    return -10 * float(np.log10(1 - metrics.ms_ssim(a[None], b[None])[0]))


# The metric that a bundle was trained for, and how much of a JPEG's bytes it may take at the same value.
PROMISES = {"photo": (psnr, 0.65), "photo-msssim": (ms_ssim, 0.65)}


def jpeg(pixels: np.ndarray, quality: int) -> tuple[int, np.ndarray]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True, subsampling="4:2:0")
    with Image.open(file) as image:
        return len(file.getvalue()), np.asarray(image)


def test_photo_is_what_compress_takes_when_no_model_is_named() -> None:
    assert attar.load().bundle.sha256 == attar.load("photo").bundle.sha256


def test_a_bundle_has_all_qualities_in_12_megabytes(codec: attar.Codec) -> None:
    assert codec.manifest.qualities == (1, 100)
    assert len(bundle.find(codec.manifest.name).read_bytes()) <= 12 << 20


def test_decoding_costs_at_most_20_kmac_per_pixel(codec: attar.Codec) -> None:
    import macs

    counts = macs.totals(codec.bundle, 512, 768)
    assert sum(counts[name] for name in counts if name not in macs.ENCODER_ONLY) <= 20_000 * 512 * 768


def test_more_quality_is_more_bytes_and_better_and_far_smaller_than_jpeg(codec: attar.Codec) -> None:
    metric, most = PROMISES[codec.manifest.name]
    pixels = photograph("mountain.jpg")  # which was in no training set; the kitten was
    points = []
    for quality in QUALITIES:
        data = codec.compress(pixels, quality=quality)
        points.append((len(data), metric(pixels, codec.decompress(data))))
    assert all(a < b for pair in pairwise(points) for a, b in zip(*pair, strict=True)), points
    rival = [jpeg(pixels, quality) for quality in range(5, 96, 5)]
    sizes, levels = zip(*((size, metric(pixels, back)) for size, back in rival), strict=True)
    wanted = [np.exp(np.interp(level, levels, np.log(sizes))) for _, level in points[1:4]]
    ratio = np.mean([size / other for (size, _), other in zip(points[1:4], wanted, strict=True)])
    assert ratio < most


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (17, 33), (64, 65)])
def test_any_size_with_alpha_or_gray(codec: attar.Codec, height: int, width: int) -> None:
    pixels = photograph("kitten.png", height, width)
    assert codec.decompress(codec.compress(pixels)).shape == pixels.shape
    alpha = np.dstack([pixels, np.arange(height * width, dtype=np.uint8).reshape(height, width)])
    back = codec.decompress(codec.compress(alpha, quality=30))
    assert np.array_equal(back[..., 3], alpha[..., 3])
    gray = np.ascontiguousarray(pixels[..., :1])
    assert codec.decompress(codec.compress(gray, quality=90)).shape == gray.shape


def test_two_threads_read_what_one_has_written(codec: attar.Codec) -> None:
    pixels = photograph("earthrise.png")
    data = codec.compress(pixels)
    other = attar.load(codec.manifest.name, threads=2)
    assert np.abs(other.decompress(data).astype(int) - codec.decompress(data)).max() <= 1
    again = other.compress(pixels)
    assert np.abs(codec.decompress(again).astype(int) - other.decompress(again)).max() <= 1
