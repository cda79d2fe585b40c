"""The photo codec on Kodak: real files against JPEG, WebP, JPEG XL, AVIF and the published VTM curve.

    python benchmarks/photo.py KODAK_FOLDER [--model photo] [--metric psnr] [--published vtm.json] [-o DIR] [-j JOBS]
                               [--effort 0..9] [--qualities 1,12,...] [--monotonic] [--speed]

Prints the BD-rate against each rival with the part of the quality range that both cover and the libraries'
versions, and beside it what is required; ``--metric ms_ssim`` is for a model trained on it. ``--monotonic``
tries all qualities 1 to 100 on every image: bytes and the metric must rise with each. ``--speed`` times whole
files at 768 x 512. Exits with 1 where a requirement is not met. Measurements are kept in DIR/rows.csv.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import attar
from attar.codec import images
from attar.measure import benchmark, metrics
from attar.measure.curves import METRICS, bd, mean_curves, read_published

REQUIRED = {
    "psnr": {"jpeg": -50.0, "webp": -20.0, "jxl": -25.0, "avif": 0.0, "avif-444": 0.0},
    "ms_ssim": {"avif": -20.0},
}
QUALITIES = "1,12,23,34,45,56,67,78,89,100"
LIMITS_MS = {"compress": 120.0, "decompress": 100.0}


def rates(given: argparse.Namespace) -> bool:
    """BD-rates of the model against every rival; True where all that is required is reached."""
    metric, required = METRICS[given.metric], REQUIRED[given.metric]
    ours = f"attar-e{given.effort}:{given.model}" if given.effort else f"attar:{given.model}"
    codecs = ["jpeg", "webp", "jxl", "avif", "avif-444", f"photo={ours}"]
    plan = benchmark.plan([given.kodak], codecs, {"photo": tuple(map(int, given.qualities.split(",")))})
    for absent in plan.absent:
        print(f"{absent.name} is absent: {absent.reason}")
    command = shlex.join(sys.argv)
    rows = benchmark.run(plan, given.output, repeats=1, jobs=given.jobs, command=command)
    *rivals, photo = mean_curves(rows)
    rivals += read_published([given.published]) if given.published else []
    print(f"{photo.name}: {photo.source}, {len(plan.sources)} images; {metric.axis}")
    for bpp, level in photo.points(metric):
        print(f"  {bpp:.4f} bpp  {level:.3f} dB")
    reached = True
    for rival in rivals:
        found = bd(rival, photo, metric)
        limit = required.get(rival.name)
        if found.rate is None or found.span is None:
            print(f"{rival.name:12} no BD-rate: {found.refused}")
            reached &= limit is None
            continue
        verdict = ""
        if limit is not None:
            verdict = f"  (required {limit:+.0f} %: {'reached' if found.rate <= limit else 'MISSED'})"
            reached &= found.rate <= limit
        low, high = found.span
        print(
            f"{rival.name:12} {found.rate:+7.2f} %  overlap {found.overlap:4.0%}, {low:.1f} to {high:.1f} dB  "
            f"{rival.source}{verdict}"
        )
    return reached


def monotonic(given: argparse.Namespace) -> bool:
    """Whether bytes and the metric rise with each of all qualities, on every image."""
    codec, faults, tried = attar.load(given.model), [], 0
    measure = {"psnr": metrics.psnr, "ms_ssim": metrics.ms_ssim}[given.metric]
    for path in benchmark.collect([given.kodak]):
        pixels = images.read(path).pixels
        before = (-1, -1.0)
        for quality in range(1, 101):
            data = codec.compress(pixels, quality=quality)
            now, tried = (len(data), float(measure(pixels, codec.decompress(data)))), tried + 1
            if now[0] <= before[0] or now[1] <= before[1]:
                faults.append(
                    f"{path.name}, quality {quality}: {now[0]} bytes and {now[1]:.5f} after {before}"
                )
            before = now
    print(f"monotonic by {given.metric}: {tried} files, {len(faults)} steps that do not rise")
    print("\n".join(f"  {fault}" for fault in faults[:20]))
    return not faults


def speed(given: argparse.Namespace) -> bool:
    """Median times of whole files at 768 x 512 and quality 50: reading PNG or .attar bytes to writing them."""
    codec = attar.load(given.model)
    pictures = [images.read(path) for path in benchmark.collect([given.kodak])]
    pngs = [images.encode(p, "PNG") for p in pictures if sorted(p.pixels.shape[:2]) == [512, 768]][:8]
    files = [codec.compress(png) for png in pngs]

    def median(work: object, arguments: list[bytes]) -> float:
        seconds = []
        for _ in range(5):
            for argument in arguments:
                began = time.perf_counter()
                work(argument)  # type: ignore[operator]
                seconds.append(time.perf_counter() - began)
        return 1000 * statistics.median(seconds)

    found = {
        "compress": median(codec.compress, pngs),
        "decompress": median(codec.decompress, files),
        "decompress to PNG": median(lambda data: images.encode(codec.decode(data), "PNG"), files),
    }
    for name, milliseconds in found.items():
        limit = LIMITS_MS.get(name)
        note = f" (required: {limit:.0f} ms)" if limit else ""
        print(f"{name}: {milliseconds:.0f} ms{note}")
    print(f"{np.mean([len(data) for data in files]):.0f} bytes a file, {len(pngs)} images")
    return all(found[name] <= limit for name, limit in LIMITS_MS.items())


def main() -> int:
    """Measure what is asked for; 1 where a requirement is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kodak", type=Path)
    parser.add_argument("--model", default="photo", help="an installed bundle, or a file")
    parser.add_argument("--metric", choices=sorted(REQUIRED), default="psnr")
    parser.add_argument("--published", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("photo-benchmark"))
    parser.add_argument("-j", "--jobs", type=int, default=1)
    parser.add_argument("--effort", type=int, default=0, choices=range(10), help="for the rates alone")
    parser.add_argument("--qualities", default=QUALITIES, help="those that the rates are measured at")
    parser.add_argument("--monotonic", action="store_true")
    parser.add_argument("--speed", action="store_true")
    given = parser.parse_args()
    checks = [rates, *([monotonic] if given.monotonic else []), *([speed] if given.speed else [])]
    done = [check(given) for check in checks]  # every one, also after a miss
    return int(not all(done))


if __name__ == "__main__":
    raise SystemExit(main())
