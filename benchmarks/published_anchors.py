"""Do our JPEG and WebP curves lie on the ones that CompressAI published for Kodak?

    python benchmarks/published_anchors.py KODAK_FOLDER PUBLISHED_FOLDER [-o DIR] [-j JOBS]

Qualities 5 to 95, WebP at Pillow's default method 4, as there. The published curves were made with Pillow
7.1.2, which contained the IJG's libjpeg 9d; Pillow contains libjpeg-turbo now, which gives about 0.12 dB
more. With `pip install jpeglib` the old library is measured too, and must lie on the published curve. Prints
the largest difference in PSNR at the published rates, draws the curves on top of each other, and exits with 1
where a curve that must agree is off by more than 0.1 dB.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from pathlib import Path

import numpy as np

from attar.measure import benchmark
from attar.measure.curves import METRICS, Curve, bd, mean_curves, read_published
from attar.measure.plots import rd_plot

QUALITIES = range(5, 100, 5)
TOLERANCE_DB = 0.1
PROGRAM = f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__).with_name('libjpeg9.py')))}"
OLD_JPEG = f"jpeg-9d=ext:{PROGRAM} encode {{in}} {{out}} {{q}} :: {PROGRAM} decode {{in}} {{out}}"
PSNR = METRICS["psnr"]


def differences(ours: Curve, theirs: Curve) -> list[tuple[float, float]]:
    """(bpp, our dB less theirs) at each published rate that our curve covers, linear in the log rate."""
    rates, levels = map(np.array, zip(*ours.points(PSNR), strict=True))
    return [
        (bpp, float(np.interp(np.log(bpp), np.log(rates), levels)) - level)
        for bpp, level in theirs.points(PSNR)
        if rates[0] * 0.999 <= bpp <= rates[-1] * 1.001
    ]


def main() -> int:
    """Measure, compare, print; 1 where a curve is off."""
    parser = argparse.ArgumentParser(description="Compare our JPEG and WebP with the published curves.")
    parser.add_argument("kodak", type=Path)
    parser.add_argument("published", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("published-anchors"))
    parser.add_argument("-j", "--jobs", type=int, default=1)
    given = parser.parse_args()
    pairs = {"webp-m4": "webp.json", "jpeg": "jpeg.json"}
    if importlib.util.find_spec("jpeglib"):
        pairs["jpeg-9d"] = "jpeg.json"
    else:
        print("jpeglib is not installed: the published library (libjpeg 9d) is not measured")
    codecs = [OLD_JPEG if name == "jpeg-9d" else name for name in pairs]
    plan = benchmark.plan([given.kodak], codecs, dict.fromkeys(pairs, QUALITIES))
    rows = benchmark.run(plan, given.output, repeats=1, jobs=given.jobs, command=shlex.join(sys.argv))
    measured = {curve.name: curve for curve in mean_curves(rows)}
    off = False
    for name, file in pairs.items():
        (published,) = read_published([given.published / file])
        found = differences(measured[name], published)
        bpp, largest = max(found, key=lambda pair: abs(pair[1]))
        binding = name != "jpeg"
        off |= binding and abs(largest) > TOLERANCE_DB
        print(
            f"{name}: {len(found)} rates, {found[0][0]:.2f} to "
            f"{found[-1][0]:.2f} bpp; largest difference {largest:+.4f} dB at {bpp:.2f} bpp, mean "
            f"{np.mean([d for _, d in found]):+.4f} dB; "
            f"BD-rate {bd(published, measured[name], PSNR).rate:+.2f} %"
            f"{'' if binding else ' (another library than published)'}"
        )
    drawn = read_published([given.published / "jpeg.json", given.published / "webp.json"])
    plot = rd_plot(list(measured.values()), drawn, PSNR, kind="png")
    (given.output / "published-anchors.png").write_bytes(plot or b"")
    return int(off)


if __name__ == "__main__":
    sys.exit(main())
