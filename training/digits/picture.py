"""docs/images/digits.png: the first test digit of each class, what its file gives back, and the bytes of the file.

python training/digits/picture.py [BUNDLE] [PNG]
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

import attar
from attar.measure import metrics
from attar.train import pictures

ROOT = Path(__file__).resolve().parents[2]


def test_digits() -> np.ndarray:
    """The first MNIST test digit of each class, uint8 (10, 28, 28, 1)."""
    folder = ROOT / "src" / "attar" / "data" / "digits"
    packed = [folder / f"t10k-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")]
    pixels, labels = (gzip.decompress(path.read_bytes()) for path in packed)
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28, 1)
    classes = np.frombuffer(labels, np.uint8, offset=8)
    return images[[int(np.argmax(classes == digit)) for digit in range(10)]]


def main(bundle: str = "digits", path: str = str(ROOT / "docs" / "images" / "digits.png")) -> None:
    """Draw the picture."""
    codec, images = attar.load(bundle), test_digits()
    files = codec.compress_batch(list(images), effort=2)
    decoded = np.stack(codec.decompress_batch(files))
    quality = zip(files, metrics.psnr(images, decoded), metrics.ssim(images, decoded), strict=True)
    captions = [f"{len(data)} bytes, {psnr:.1f} dB, SSIM {ssim:.3f}" for data, psnr, ssim in quality]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pictures.regenerated(images, decoded, captions, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
