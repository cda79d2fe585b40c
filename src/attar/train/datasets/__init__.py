"""Data sets to train on: the embedded digits, folders of images or of IDX files, TensorFlow Datasets.

Every source gives its images once, decoded; they are split so that no two splits share an image, and given
out in seeded batches of uint8 (B, H, W, C)::

    data = load("photographs/", crop=256, seed=1)
    for indices, images in batches(data.train, 8, seed=1, epoch=0):
        ...
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from attar.errors import DatasetError
from attar.train.datasets import folder, idx
from attar.train.datasets.assign import LEFT_OUT, TEST, TRAIN, VALIDATION, assign
from attar.train.datasets.decode import decode
from attar.train.datasets.form import Form
from attar.train.datasets.splits import ArraySplit, CropSplit, Dataset, Split, batches
from attar.train.datasets.store import Images

__all__ = ["Dataset", "Split", "batches", "load"]

FIXED_SEED = 0
"""Splits digits and IDX files, so that a figure on them means the same in every run."""
LABELS = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}


def load(
    name: str,
    *,
    tfds: bool = False,
    height: int | None = None,
    width: int | None = None,
    channels: int | None = None,
    crop: int | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    limit: int | None = None,
    shift: int = 0,
    flip: bool = False,
    shrink: float = 1.0,
) -> Dataset:
    """Load a data set.

    ``name`` is ``digits``, a folder with IDX files (such as MNIST's), or a folder of images at any depth;
    with ``tfds`` it is a name of TensorFlow Datasets, kept in ``data_dir``. What a source holds out itself
    stays held out (see :func:`folder.scan`, :func:`idx.read_folder` and :func:`tfds.find`); splits that it
    lacks are drawn with ``seed`` (see :func:`assign.assign`), those of ``digits`` and IDX files with a
    fixed one.

    ``height`` and ``width`` resize, ``channels`` makes gray (1) or RGB (3); transparent images are laid over
    white. With ``crop``, batches are ``crop`` x ``crop`` pieces: random in training, central in validation
    and test. ``limit`` keeps at most so many images of each split, drawn with ``seed``. ``shift`` (whole
    pixels; not with ``crop``), ``flip`` and ``shrink`` (the smallest scale of a crop; with ``crop``) augment
    training.

    Raises :class:`DatasetError`, and :class:`~attar.errors.MissingExtraError` without TensorFlow Datasets.
    """
    form = Form(height, width, channels, crop)
    if not 0 <= seed < 2**63:
        raise DatasetError(f"seed {seed}: expected 0 to 2^63 - 1")
    if limit is not None and limit < 1:
        raise DatasetError(f"limit {limit}: at least 1 image of each split is needed")
    if shift < 0 or (shift and crop is not None):
        raise DatasetError(
            f"shift {shift}: expected 0 or more pixels, and 0 with a crop, whose place is random anyhow"
        )
    if not 0 < shrink <= 1 or (shrink < 1 and crop is None):
        raise DatasetError(f"shrink {shrink}: expected above 0 and at most 1, and 1 without a crop")
    title, images, exact = _read(name, form, tfds, None if data_dir is None else Path(data_dir))
    which = assign(
        title, images.digests, images.parts, seed=seed if exact is None else FIXED_SEED, exact=exact
    )
    rows = {part: _limited(np.flatnonzero(which == part), limit, seed) for part in LABELS}
    splits = {part: _split(images, rows[part], f"{title}/{label}", crop) for part, label in LABELS.items()}
    train = splits[TRAIN]
    train = (
        replace(train, random=True, flip=flip, shrink=shrink)
        if isinstance(train, CropSplit)
        else replace(train, shift=shift, flip=flip)
    )
    copies = tuple(
        f"{_name(images, int(row))}: the same image is held out" for row in np.flatnonzero(which == LEFT_OUT)
    )
    skipped = images.skipped + copies
    sizes = ", ".join(f"{len(rows[part])} {label}" for part, label in LABELS.items())
    how = f"seed {seed}" if exact is None else "a fixed split"
    description = f"{name}: {len(images.parts)} images, {sizes} ({how}); {len(skipped)} skipped"
    height, width, channels = train.take(np.zeros(1, np.int64)).shape[1:]
    return Dataset(
        title,
        (height, width, channels),
        train,
        splits[VALIDATION],
        splits[TEST],
        skipped,
        description,
        images.file,
    )


def _read(name: str, form: Form, tfds: bool, data_dir: Path | None) -> tuple[str, Images, int | None]:
    """Read a source: title, images, and how many of them each split that it lacks gets (None: a tenth)."""
    if tfds:
        from attar.train.datasets import tfds as tensorflow_datasets

        records, place, state = tensorflow_datasets.find(name, data_dir)
        return name, decode(name, records, form, place, state), None
    if name == "digits":
        return "digits", *idx.digits(form)
    path = Path(name)
    try:
        folder_there, anything_there = path.is_dir(), path.exists()
    except OSError as error:
        raise DatasetError(f"{name!r} cannot be opened: {error.strerror or error}") from error
    if not folder_there:
        raise DatasetError(
            f"{name!r} {'is a file' if anything_there else 'does not exist'}: expected 'digits', a folder of "
            "images or a folder of IDX files; for a name of TensorFlow Datasets add --tfds true"
        )
    title = path.resolve().name or str(path)
    if files := idx.find_idx(path):
        return title, *idx.read_folder(files, form)
    records, state, unreadable = folder.scan(path)
    images = decode(name, records, form, str(path.resolve()), state)
    return title, replace(images, skipped=unreadable + images.skipped), None


def _limited(rows: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    if limit is None or len(rows) <= limit:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))


def _split(images: Images, rows: np.ndarray, label: str, crop: int | None) -> ArraySplit | CropSplit:
    if crop is None:
        height, width = images.sizes[0]
        return ArraySplit(
            images.pixels.reshape(-1, height, width, images.channels), rows, label, images.names
        )
    ends = np.cumsum(images.sizes.prod(axis=1) * images.channels)
    offsets = np.concatenate([[0], ends[:-1]])
    return CropSplit(images.pixels, offsets, images.sizes, images.channels, rows, label, crop, images.names)


def _name(images: Images, row: int) -> str:
    return images.names[row] if images.names else f"image {row}"
