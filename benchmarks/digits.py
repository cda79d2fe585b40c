"""The shipped digits bundle on the whole MNIST test set, with real files, against classical codecs at equal SSIM.

    python benchmarks/digits.py [--model digits] [--rivals png,...] [--limit N] [--json OUT]

Every figure is of whole files that were written, read and decoded: the embedded 10,000 test digits,
which are the whole test set of MNIST.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.resources
import json
import tempfile
import time
from pathlib import Path

import numpy as np

import attar
from attar.measure import matched, metrics
from attar.measure.anchors import Absent

RIVALS = "png,webp-lossless,jpeg-opt,webp,avif,jxl"


def test_set() -> np.ndarray:
    """MNIST's 10,000 test images, uint8 (N, 28, 28, 1)."""
    packed = importlib.resources.files("attar") / "data" / "digits" / "t10k-images-idx3-ubyte.gz"
    return np.frombuffer(gzip.decompress(packed.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--rivals", default=RIVALS)
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    images = test_set()[: options.limit]
    codec = attar.load(options.model)
    codec.decompress(codec.compress(images[0]))  # load both networks before the clock runs
    began = time.perf_counter()
    files = codec.compress_batch(list(images))
    middle = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.attar" for number in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        written = [path.read_bytes() for path in paths]
    start = time.perf_counter()
    decoded = np.stack(codec.decompress_batch(written))
    end = time.perf_counter()
    psnr, ssim = metrics.psnr(images, decoded), metrics.ssim(images, decoded)
    sizes = np.array([len(data) for data in written])
    print(f"{codec!r}, {len(images)} test digits")
    print(f"  mean PSNR {psnr.mean():.3f} dB, mean SSIM {ssim.mean():.5f}, mean file {sizes.mean():.2f} bytes"
          f" ({sizes.min()} to {sizes.max()})")
    print(f"  compress {len(images) / (middle - began):.0f} files/s, decompress {len(images) / (end - start):.0f} files/s\n")
    rows = [{"codec": f"attar:{options.model}", "bytes": sizes.mean(), "ssim": ssim.mean(), "psnr": psnr.mean(), "version": attar.__version__}]
    for found in matched.at_equal_ssim(list(images), float(ssim.mean()), options.rivals.split(",")):
        if isinstance(found, Absent):
            print(f"  {found.name}: absent ({found.reason})")
        else:
            rows.append({"codec": found.name, "quality": found.quality, "bytes": found.bytes, "ssim": found.ssim,
                         "psnr": found.psnr, "version": found.version, "reached": found.reached})
    print(f"  {'codec':16}{'bytes':>8}{'SSIM':>9}{'PSNR':>8}{'x attar':>9}  version")
    for row in rows:
        decibels = "exact" if row["psnr"] is None else f"{row['psnr']:.2f}"
        note = "" if row.get("reached", True) else "  (its best)"
        print(f"  {row['codec']:16}{row['bytes']:8.1f}{row['ssim']:9.4f}{decibels:>8}{row['bytes'] / rows[0]['bytes']:9.2f}  {row['version']}{note}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
