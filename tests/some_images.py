"""Small images on disk, and what a data set made of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attar.train.datasets import Dataset, Split


def all_of(split: Split) -> np.ndarray:
    return split.take(np.arange(len(split)))


def contents(split: Split) -> set[bytes]:
    return {image.tobytes() for image in all_of(split)}


def noise(seed: int, height: int = 12, width: int = 16, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path, **options)


def fill(folder: Path, count: int, **shape: int) -> Path:
    for number in range(count):
        save(folder / f"{number:03}.png", noise(number, **shape))
    return folder


def members(data: Dataset) -> dict[str, set[str]]:
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: {split.name(i) for i in range(len(split))} for name, split in parts.items()}


def encoded(kind: str, image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
