"""What a large image costs: seconds and peak memory of `attar compress`, `decompress` and `decompress --region`.

    python benchmarks/large_images.py MODEL PHOTO... [--size 12000x8334] [--region 5000,4000,500,400] [--keep DIR]

The image is made of the photographs, mirrored and side by side. Every command is a process of its own, whose peak
is the largest resident set that the system counted for it, as /usr/bin/time -v prints it; reading and writing
PNG is part of it. The memory of the image itself is width x height x 3 bytes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from attar.codec import images

START = "import sys; from attar.apps.cli import main; sys.exit(main())"


def make_mosaic(photos: list[Path], width: int, height: int, path: Path) -> None:
    """Write a PNG of photographs row by row, every other one mirrored, cut at the right and bottom."""
    made = Image.new("RGB", (width, height))
    pictures = itertools.cycle(
        [Image.fromarray(images.read(path, convert=True).pixels[..., :3]) for path in photos]
    )
    side = 512
    for number, (top, left) in enumerate(itertools.product(range(0, height, side), range(0, width, side))):
        part = next(pictures).convert("RGB").crop((0, 0, side, side))
        made.paste(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else part, (left, top))
    made.save(path, compress_level=1)


def run(*arguments: object) -> dict[str, float]:
    """Run a command of attar: its seconds, its processor seconds, and its peak memory in megabytes."""
    started = time.perf_counter()
    words = [sys.executable, "-c", START, *(str(argument) for argument in arguments)]
    process = os.posix_spawn(sys.executable, words, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"attar {arguments[0]} failed")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return {
        "seconds": time.perf_counter() - started,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_megabytes": kilobytes * 1024 / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--size", default="12000x8334", metavar="WxH")
    parser.add_argument("--region", default="5000,4000,500,400", metavar="X,Y,W,H")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the files there")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        image, file = folder / "large.png", folder / "large.attar"
        # In a process of its own: a child's peak counts from what its parent had in memory when it began.
        maker = multiprocessing.get_context("spawn").Process(
            target=make_mosaic, args=(options.photos, width, height, image)
        )
        maker.start()
        maker.join()
        shared = ("-m", options.model, "--quiet", "-f", "--max-pixels", width * height)
        rows = {
            "compress": run("compress", image, "-o", file, *shared),
            "decompress": run("decompress", file, "-o", folder / "back.png", *shared),
            "region": run("decompress", file, "-o", folder / "part.png", "--region", options.region, *shared),
        }
        size = file.stat().st_size
        left, top, wide, high = map(int, options.region.split(","))
        whole = images.read(folder / "back.png", max_pixels=width * height).pixels
        part = images.read(folder / "part.png").pixels
        crop = whole[top : top + high, left : left + wide]
        worst = int(np.abs(part.astype(int) - crop).max())
    if options.json:
        about = {"width": width, "height": height, "bytes": size, "region_differs_by": worst}
        print(json.dumps(about | rows))
        return
    print(f"{width} x {height}, {width * height / 1e6:.1f} megapixels -> {size} bytes")
    for name, row in rows.items():
        print(
            f"  {name:<10} {row['seconds']:8.1f} s  {row['processor_seconds']:8.1f} processor s  "
            f"{row['peak_megabytes']:8.0f} MB at most"
        )
    print(f"  the region differs from the whole by at most {worst} level(s)")


if __name__ == "__main__":
    main()
