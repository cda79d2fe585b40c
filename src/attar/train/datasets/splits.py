"""What a data set is for a trainer: three splits, and seeded batches of uint8 images from each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from attar.errors import DatasetError
from attar.train.datasets.form import Form, conform

__all__ = ["ArraySplit", "CropSplit", "Dataset", "Split", "batches"]

ALL = slice(None)


class Split(Protocol):
    """Images with indexes from 0 to ``len(split) - 1``, all given out in one shape."""

    def __len__(self) -> int:
        """Give the number of images."""
        ...

    def take(
        self, indices: np.ndarray, rng: np.random.Generator | None = None, part: slice = ALL
    ) -> np.ndarray:
        """Give the images ``indices`` (B,), or a ``part`` of them, as uint8 (B, H, W, C), newly allocated.

        ``rng`` draws the crops and the augmentation of a training split, for all the images whatever the part
        is; without it, and in the other splits always, the crop is the central one and nothing is augmented.
        """
        ...

    def name(self, index: int) -> str:
        """Name an image for people: the file's path, or ``digits/train/123``."""
        ...


@dataclass(frozen=True)
class Dataset:
    """Three splits that share no image."""

    name: str
    """``digits``, the folder's name, or the TensorFlow Datasets name."""
    shape: tuple[int, int, int]
    """Height, width and channels of every batch."""
    train: Split
    validation: Split
    test: Split
    skipped: tuple[str, ...]
    """One line, ``path: reason``, for each image that is in no split."""
    description: str
    """One line: where the images come from, the sizes of the splits, how they were split."""
    file: Path | None = None
    """Where the decoded images lie, which is nobody else's business: no part of what a run or a bundle says."""


@dataclass(frozen=True)
class ArraySplit:
    """Images of one size: the ``rows`` (M,) of ``images``, uint8 (N, H, W, C), in memory or mapped.

    With a ``rng``, each image is moved by up to ``shift`` whole pixels each way, its edge repeated, and
    mirrored left to right in half of the cases if ``flip``.
    """

    images: np.ndarray = field(repr=False)
    rows: np.ndarray = field(repr=False)
    label: str
    names: Sequence[str] = field(default=(), repr=False)
    shift: int = 0
    flip: bool = False

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.rows)

    def take(
        self, indices: np.ndarray, rng: np.random.Generator | None = None, part: slice = ALL
    ) -> np.ndarray:
        """Give images as uint8 (B, H, W, C); see :class:`Split`."""
        rows = self.rows[indices]
        taken: np.ndarray
        if rng is None or not (self.shift or self.flip):
            taken = self.images.take(rows[part], axis=0)
            return taken
        _, height, width, _ = self.images.shape
        count = len(rows)
        dy, dx = rng.integers(-self.shift, self.shift + 1, (2, count, 1))
        mirrored = rng.random((count, 1)) < 0.5 if self.flip else np.zeros((count, 1), bool)
        rows, dy, dx, mirrored = (drawn[part] for drawn in (rows, dy, dx, mirrored))
        ys = np.clip(np.arange(height) + dy, 0, height - 1)  # (B, H)
        xs = np.clip(np.arange(width) + dx, 0, width - 1)  # (B, W)
        xs = np.where(mirrored, width - 1 - xs, xs)
        taken = self.images[rows[:, None, None], ys[:, :, None], xs[:, None, :]]
        return taken

    def name(self, index: int) -> str:
        """Name an image for people."""
        return self.names[self.rows[index]] if self.names else f"{self.label}/{index}"


@dataclass(frozen=True)
class CropSplit:
    """Crops of ``crop`` x ``crop`` pixels out of images of any size, one after the other in ``pixels``.

    Image ``i`` begins at ``offsets[i]``; its ``sizes[i]``, height and width, are at least ``crop``. A split
    that is ``random`` draws the place from the ``rng``; if ``flip``, a mirror image in half of the cases; and
    if ``shrink`` is below 1, a scale from there to 1, as far as the image is large enough: a larger piece is
    made smaller, which leaves sharper detail than the photograph has and none of what its compression left
    (Mentzer et al. 2020, arXiv:2006.09965).
    """

    pixels: np.ndarray = field(repr=False)  # uint8 (total,)
    offsets: np.ndarray = field(repr=False)  # (N,)
    sizes: np.ndarray = field(repr=False)  # (N, 2)
    channels: int
    rows: np.ndarray = field(repr=False)  # (M,)
    label: str
    crop: int
    names: Sequence[str] = field(default=(), repr=False)
    random: bool = False
    flip: bool = False
    shrink: float = 1.0

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.rows)

    def take(
        self, indices: np.ndarray, rng: np.random.Generator | None = None, part: slice = ALL
    ) -> np.ndarray:
        """Give one crop of each image as uint8 (B, crop, crop, C); see :class:`Split`."""
        rows = self.rows[indices]
        sizes = self.sizes[rows]
        sides = np.full(len(rows), self.crop)
        mirrored = np.zeros(len(rows), bool)
        if rng is None or not self.random:
            corners = (sizes - self.crop) // 2
        else:
            if self.shrink < 1:
                wanted = self.crop / rng.uniform(self.shrink, 1, len(rows))
                sides = np.minimum(np.round(wanted).astype(np.int64), sizes.min(1))
            corners = rng.integers(0, sizes - sides[:, None] + 1)
            if self.flip:
                mirrored = rng.random(len(rows)) < 0.5
        rows, sizes, sides, corners, mirrored = (
            drawn[part] for drawn in (rows, sizes, sides, corners, mirrored)
        )
        out = np.empty((len(rows), self.crop, self.crop, self.channels), np.uint8)
        drawn = (self.offsets[rows], sizes, sides, corners, mirrored)
        for crop, start, (height, width), side, (top, left), mirror in zip(
            out, *(values.tolist() for values in drawn), strict=True
        ):
            image = self.pixels[start : start + height * width * self.channels].reshape(
                height, width, self.channels
            )
            piece = conform(image[top : top + side, left : left + side], Form(self.crop, self.crop))
            crop[:] = piece[:, ::-1] if mirror else piece
        return out

    def name(self, index: int) -> str:
        """Name an image for people."""
        return self.names[self.rows[index]] if self.names else f"{self.label}/{index}"


def batches(
    split: Split,
    batch_size: int,
    *,
    seed: int | None = None,
    epoch: int = 0,
    start: int = 0,
    drop_last: bool = False,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Walk once through a split: pairs of indexes (B,) and images uint8 (B, H, W, C).

    Without a ``seed`` the images come in order, and nothing is drawn. With one, the order depends on
    (seed, epoch) only, and the crops and augmentation of batch k on (seed, epoch, k) only: ``start=k`` goes
    on in the middle of an epoch exactly as the uninterrupted run would have. The last batch may be smaller,
    unless ``drop_last`` leaves it out. With a ``share`` (r, n), the images are the r-th of n equal parts of each
    batch, drawn as the whole batch's; the indexes are still those of all. Raises :class:`DatasetError` on a
    size or number out of range.
    """
    if batch_size < 1:
        raise DatasetError(f"batch size {batch_size}: at least 1 is needed")
    if start < 0 or epoch < 0 or (seed is not None and seed < 0):
        raise DatasetError(f"seed {seed}, epoch {epoch}, first batch {start}: none of them may be negative")
    return _walk(split, batch_size, seed, epoch, start, drop_last, share)


def _walk(
    split: Split,
    batch_size: int,
    seed: int | None,
    epoch: int,
    start: int,
    drop_last: bool,
    share: tuple[int, int],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    order = np.arange(len(split)) if seed is None else _rng(seed, epoch).permutation(len(split))
    count = len(split) // batch_size if drop_last else -(-len(split) // batch_size)
    for number in range(start, count):
        indices = order[number * batch_size : (number + 1) * batch_size]
        rank, size = share
        part = slice(rank * len(indices) // size, (rank + 1) * len(indices) // size)
        yield indices, split.take(indices, None if seed is None else _rng(seed, epoch, number), part)


def _rng(seed: int, *path: int) -> np.random.Generator:
    # A spawn key, and not a list as the seed: (1, 2) and (1, 2, 0) as seeds are the same stream.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=path))
