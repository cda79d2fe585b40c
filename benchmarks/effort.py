"""What ``--effort`` gains: bytes, PSNR, BD-rate and processor time of each effort, real files, decoded.

``python benchmarks/effort.py IMAGES... [--qualities 10,30,50,70,90] [--efforts 1,2,4] [--crop 512] [--model photo]``.
BD-rates are against effort 0: of the mean curves, and the mean of those of each image.
MS-SSIM needs images of 161 pixels each way.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import attar
from attar.codec import images
from attar.measure import benchmark, metrics
from attar.measure.curves import METRICS, Curve, bd

Point = tuple[float, float, float, float]
"""Bytes, bits per pixel, PSNR in dB and MS-SSIM (or nan) of a file."""


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def central(path: Path, side: int | None) -> np.ndarray:
    pixels = images.read(path).pixels
    if side is None:
        return pixels
    top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def measured(codec: attar.Codec, pixels: np.ndarray, quality: int, effort: int) -> tuple[Point, float]:
    """A point, and the processor seconds that compressing took."""
    began = time.process_time()
    data = codec.compress(pixels, quality=quality, effort=effort)
    seconds = time.process_time() - began
    back = codec.decompress(data)
    similar = metrics.ms_ssim(pixels, back) if min(pixels.shape[:2]) >= metrics.MS_SSIM_MIN_SIDE else None
    bpp = 8 * len(data) / (pixels.shape[0] * pixels.shape[1])
    psnr = float(metrics.psnr(pixels, back))
    return (len(data), bpp, psnr, float("nan") if similar is None else float(similar)), seconds


def curve(name: str, points: Sequence[Sequence[Point]]) -> Curve:
    """The mean over images of points (images, qualities)."""
    mean = np.mean(np.array(points), axis=0)
    values = {"psnr": tuple(mean[:, 2].tolist()), "ms_ssim": tuple(mean[:, 3].tolist())}
    return Curve(
        name, tuple(mean[:, 1].tolist()), {key: v for key, v in values.items() if np.isfinite(v).all()}
    )


def saving(anchor: list[list[Point]], test: list[list[Point]], metric: str) -> str:
    """BD-rate of the mean curves, and the mean of the images' own."""
    found = bd(curve("effort 0", anchor), curve("this", test), METRICS[metric])
    if found.rate is None:
        return found.refused
    own = [
        bd(curve("effort 0", [a]), curve("this", [b]), METRICS[metric]).rate
        for a, b in zip(anchor, test, strict=True)
    ]
    each = np.mean([rate for rate in own if rate is not None])
    return f"{found.rate:+.2f} % (each image {each:+.2f} %)"


def options(text: str | None) -> argparse.ArgumentParser:
    """What every such measurement is told: images, a model, and qualities."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", default="photo", help="an installed bundle, or a file")
    parser.add_argument("--qualities", type=numbers, default=[10, 30, 50, 70, 90])
    return parser


def main() -> None:
    """Measure every image at every quality with every effort."""
    parser = options(__doc__)
    parser.add_argument("--efforts", type=numbers, default=[1, 2, 4, 9])
    parser.add_argument("--crop", type=int, help="side of a central square that is taken")
    given = parser.parse_args()
    codec = attar.load(given.model, threads=1)
    points: dict[int, list[list[Point]]] = defaultdict(list)
    seconds: dict[int, float] = defaultdict(float)
    efforts = [0, *(effort for effort in given.efforts if effort)]
    for path in benchmark.collect(given.images):
        pixels = central(path, given.crop)
        codec.compress(pixels, quality=given.qualities[0])  # so that no effort pays for loading the networks
        for effort in efforts:
            row = [measured(codec, pixels, quality, effort) for quality in given.qualities]
            points[effort].append([point for point, _ in row])
            seconds[effort] += sum(spent for _, spent in row)
    print(f"{codec!r}, {len(points[0])} images, qualities {given.qualities}; mean bpp/dB of effort 0:")
    print(" ", *(f"{bpp:.4f}/{psnr:.3f}" for bpp, psnr in np.array(points[0])[..., 1:3].mean(axis=0)))
    for effort in efforts[1:]:
        now, was = np.array(points[effort]), np.array(points[0])
        bytes_each = 100 * (now[..., 0] / was[..., 0] - 1).mean(axis=0)
        psnr_each = (now[..., 2] - was[..., 2]).mean(axis=0)
        print(
            f"effort {effort}: BD-rate {saving(points[0], points[effort], 'psnr')} by PSNR, "
            f"{saving(points[0], points[effort], 'ms_ssim')} by MS-SSIM; "
            f"{seconds[effort] / seconds[0]:.1f} times the processor time of effort 0"
        )
        for quality, size, level in zip(given.qualities, bytes_each, psnr_each, strict=True):
            print(f"  quality {quality}: bytes {size:+.1f} %, PSNR {level:+.3f} dB")
        print("  mean bpp/dB:", *(f"{bpp:.4f}/{psnr:.3f}" for bpp, psnr in now[..., 1:3].mean(axis=0)))


if __name__ == "__main__":
    main()
