"""The shipped digits bundle on the whole MNIST test set, with real files, against classical codecs at equal SSIM.

    python benchmarks/digits.py [--model digits] [--efforts 0,2] [--rivals png,...] [--limit N] [--json OUT]

Every figure is of whole files that were written, read and decoded: the embedded 10,000 test digits, which are
the whole test set of MNIST. Rivals are given the lowest quality whose mean SSIM is no lower than ours at the
first effort.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.resources
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

import attar
from attar.measure import matched, metrics
from attar.measure.anchors import Absent
from attar.measure.matched import Match

RIVALS = "png,webp-lossless,jpeg-opt,webp,avif,jxl"


def test_set() -> np.ndarray:
    """MNIST's 10,000 test images, uint8 (N, 28, 28, 1)."""
    packed = importlib.resources.files("attar") / "data" / "digits" / "t10k-images-idx3-ubyte.gz"
    return np.frombuffer(gzip.decompress(packed.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28, 1)


def ours(codec: attar.Codec, images: np.ndarray, effort: int) -> Match:
    """Write, read, decode and compare a file of every image; speeds go to the terminal."""
    began = time.perf_counter()
    files = codec.compress_batch(list(images), effort=effort)
    middle = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.attar" for number in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        written = [path.read_bytes() for path in paths]
    start = time.perf_counter()
    decoded = np.stack(codec.decompress_batch(written))
    end = time.perf_counter()
    sizes = np.array([len(data) for data in written])
    print(
        f"effort {effort}: files of {sizes.min()} to {sizes.max()} bytes; compress"
        f" {len(images) / (middle - began):.0f} files/s, decompress {len(images) / (end - start):.0f} files/s"
    )
    return Match(
        f"attar:{codec.manifest.name} effort {effort}",
        f"attar {attar.__version__}",
        None,
        float(sizes.mean()),
        float(metrics.ssim(images, decoded).mean()),
        float(metrics.psnr(images, decoded).mean()),
        True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="digits")
    parser.add_argument("--efforts", default="0,2")
    parser.add_argument("--rivals", default=RIVALS)
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    images = test_set()[: options.limit]
    codec = attar.load(options.model)
    codec.decompress(codec.compress(images[0]))  # load both networks before the clock runs
    print(f"{codec!r}, {len(images)} test digits")
    rows: list[Match | Absent] = [ours(codec, images, int(effort)) for effort in options.efforts.split(",")]
    first = rows[0]
    assert isinstance(first, Match)
    rows += matched.at_equal_ssim(list(images), first.ssim, options.rivals.split(","))
    print(f"\n  {'codec':24}{'bytes':>8}{'SSIM':>9}{'PSNR':>8}{'x first':>9}  version")
    for row in rows:
        if isinstance(row, Absent):
            print(f"  {row.name:24} absent: {row.reason}")
            continue
        decibels = "exact" if row.psnr is None else f"{row.psnr:.2f}"
        note = "" if row.reached else "  (its best)"
        print(
            f"  {row.name:24}{row.bytes:8.1f}{row.ssim:9.4f}{decibels:>8}{row.bytes / first.bytes:9.2f}"
            f"  {row.version}{note}"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
