"""What a search for a target saves by doing once what no quality changes: processor time of both ways, and their ratio.

    OMP_NUM_THREADS=1 python benchmarks/target_search.py MODEL IMAGE... [--json]

For each image the same targets are reached twice in one process, in turns: by ``compress_to``, as ``attar compress
--target-*`` does, and by a search that compresses the image from its pixels, and decodes the file, at every attempt.
Both must find the same file, byte for byte. Targets are the size, PSNR and SSIM of the image at quality 40.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attar
from attar.apps.reaching import compress_to, scorer
from attar.codec import images
from attar.codec.images import Picture
from attar.codec.targets import Target, reach
from attar.measure import metrics

TARGET_QUALITY = 40


def timed(work: Callable[[], bytes]) -> tuple[float, bytes]:
    """Processor seconds, and the result."""
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def from_pixels(target: Target, codec: attar.Codec, picture: Picture) -> bytes:
    """The search that knows nothing from one attempt to the next."""
    assert codec.manifest.qualities is not None
    score = scorer(target, picture.pixels, lambda data: [codec.decode(data).pixels])
    return reach(
        target, codec.manifest.qualities, lambda quality: codec.compress(picture, quality=quality), score
    )


def targets(codec: attar.Codec, picture: Picture) -> list[Target]:
    """What the file of one quality reaches."""
    data = codec.compress(picture, quality=TARGET_QUALITY)
    decoded = codec.decode(data).pixels
    psnr = metrics.psnr(picture.pixels, decoded) or 99.0
    return [
        Target("bytes", len(data)),
        Target("psnr", psnr - 1e-6),
        Target("ssim", metrics.ssim(picture.pixels, decoded) - 1e-6),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--json", action="store_true", help="a line for each image and target")
    options = parser.parse_args()
    codec = attar.load(options.model, threads=1)
    if codec.manifest.qualities is None:
        raise SystemExit(f"{options.model} has a single rate: nothing is searched for")
    for path in options.images:
        picture = images.read(path)
        for target in targets(codec, picture):
            seconds, found = timed(lambda goal=target, given=picture: compress_to(goal, codec, given))  # type: ignore[misc]
            plain, other = timed(lambda goal=target, given=picture: from_pixels(goal, codec, given))  # type: ignore[misc]
            if found != other:
                raise SystemExit(f"{path}: the two searches for {target} found different files")
            height, width = picture.pixels.shape[:2]
            row: dict[str, Any] = {
                "image": path.name,
                "width": width,
                "height": height,
                "target": target.kind,
            }
            row |= {"seconds": seconds, "from_pixels_seconds": plain, "ratio": plain / seconds}
            if options.json:
                print(json.dumps(row), flush=True)
            else:
                print(
                    f"{path.name}, {width} x {height}, {target.kind:5}: {seconds:6.2f} processor s, "
                    f"from pixels {plain:6.2f} s, {row['ratio']:.2f} times",
                    flush=True,
                )


if __name__ == "__main__":
    main()
