"""JPEG by the IJG's libjpeg 9d, as an external codec: what Pillow 7 contained, and CompressAI measured.

    python benchmarks/libjpeg9.py encode IN.png OUT.jpg QUALITY
    python benchmarks/libjpeg9.py decode IN.jpg OUT.png

Needs `pip install jpeglib`. Quality means the same quantisation tables as in Pillow (IJG formula, baseline).
"""

from __future__ import annotations

import io
import sys

import jpeglib
import numpy as np
from PIL import Image


def quantisation(quality: int) -> np.ndarray:
    """Pillow's luma and chroma tables at a quality, (2, 8, 8)."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality)
    tables = Image.open(buffer).quantization
    return np.array([np.array(tables[number]).reshape(8, 8) for number in (0, 1)], np.uint16)


def main() -> None:
    """Encode or decode one file."""
    jpeglib.version.set("9d")
    mode, source, target, *quality = sys.argv[1:]
    if mode == "encode":
        image = jpeglib.from_spatial(np.asarray(Image.open(source).convert("RGB")))
        image.samp_factor = "4:2:0"
        image.write_spatial(target, qt=quantisation(int(quality[0])))
    else:
        Image.fromarray(jpeglib.read_spatial(source).spatial).save(target)


if __name__ == "__main__":
    main()
