"""The whole way on real digits: train, validate, export, compress, decompress, compare. `make demo` runs it.

Everything goes to the folder demo/ (or the one named on the command line); it takes some minutes on two cores.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

import attar
from attar.errors import AttarError
from attar.measure import matched
from attar.measure.anchors import Absent
from attar.train import datasets

HERE = Path(__file__).resolve().parent
OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
EPOCHS = sys.argv[2] if len(sys.argv) > 2 else "16"
RIVALS = ("png", "webp-lossless", "jpeg-opt", "webp", "avif")
SHOWN, COMPARED = 8, 200


def run(*words: str) -> str:
    """Run one attar command, show it, and give back what it printed."""
    print("$ attar " + " ".join(words), flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "attar", *words], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def main() -> None:
    """Train on the embedded digits and use what came out."""
    began = time.monotonic()
    model, bundle = str(HERE.parent / "models" / "model.json"), str(OUT / "mine.attarmodel")
    shutil.rmtree(OUT, ignore_errors=True)
    digits = OUT / "digits"
    digits.mkdir(parents=True)
    test = datasets.load("digits").test
    images = test.take(np.arange(COMPARED))
    for number, image in enumerate(images[:SHOWN]):
        Image.fromarray(image[..., 0]).save(digits / f"{number}.png")

    # lmbda is the price of a bit: a smaller one gives larger files and better digits.
    run(
        "train",
        "--model",
        model,
        "--dataset",
        "digits",
        "--epochs",
        EPOCHS,
        "--lmbda",
        "0.01",
        "--average",
        "0.99",
        "--learning-rate",
        "0.002",
        "--verbosity",
        "2",
        "--run-dir",
        str(OUT / "run"),
    )
    checkpoint = str(OUT / "run" / "checkpoints" / "best.npz")
    row = json.loads(run("validate", "--ckpt-path", checkpoint, "--json"))
    run("export", "--ckpt-path", checkpoint, "--save-path", bundle, "--licence", "Apache-2.0")
    sources = [str(digits / f"{number}.png") for number in range(SHOWN)]
    run("compress", *sources, "-m", bundle, "-o", f"{OUT / 'compressed'}/")
    files = [str(OUT / "compressed" / f"{number}.attar") for number in range(SHOWN)]
    run("decompress", *files, "-m", bundle, "-o", f"{OUT / 'regenerated'}/")

    print(
        f"\nTest digits the model has never seen ({row['images']}): PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}, "
        f"{row['bytes']:.1f} bytes for a whole .attar file."
    )
    ours = attar.load(bundle)
    compressed = ours.compress_batch(list(images))
    table(list(images), float(np.mean([len(data) for data in compressed])), row["ssim"])
    print(
        f"\nPictures: {OUT}/run/regenerated.png, curves.png, model.svg; files: {OUT}/compressed, {OUT}/regenerated"
    )
    print(f"Done in {time.monotonic() - began:.0f} s.")


def table(images: list[np.ndarray], size: float, ssim: float) -> None:
    """Bytes of each codec for digits of at least our SSIM."""
    print(f"\n{len(images)} digits at an SSIM of at least {ssim:.4f}, mean bytes of a whole file:\n")
    print(f"  {'codec':15}{'bytes':>8}{'SSIM':>9}{'x Attar':>9}")
    print(f"  {'attar':15}{size:8.1f}{ssim:9.4f}{1:9.2f}")
    for found in matched.at_equal_ssim(images, ssim, RIVALS):
        if isinstance(found, Absent):
            print(f"  {found.name:15} absent: {found.reason}")
        else:
            print(
                f"  {found.name:15}{found.bytes:8.1f}{found.ssim:9.4f}{found.bytes / size:9.2f}"
                + ("" if found.reached else "  (its best)")
            )


if __name__ == "__main__":
    try:
        main()
    except AttarError as error:
        sys.exit(f"demo: {error}")
