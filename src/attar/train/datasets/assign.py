"""Which split each image belongs to.

What a source holds out itself (a ``test/`` folder, MNIST's test file) stays held out. A split that the source
lacks is split off its training images by a hash of each image's *content* and the seed. So the split depends
neither on names nor on the order of files; adding an image moves no other; and copies of one image always go
together.
"""

from __future__ import annotations

import hashlib

import numpy as np

from attar.errors import DatasetError

__all__ = ["LEFT_OUT", "TEST", "TRAIN", "VALIDATION", "assign", "digest"]

TRAIN, VALIDATION, TEST = 0, 1, 2
LEFT_OUT = -1
SHARE = 0.1
"""How much of the training images each missing split gets."""


def digest(data: bytes) -> bytes:
    """Give the 16 bytes that stand for an image's content."""
    return hashlib.blake2b(data, digest_size=16).digest()


def assign(
    name: str, digests: np.ndarray, parts: np.ndarray, *, seed: int, exact: int | None = None
) -> np.ndarray:
    """Give each image's split: TRAIN, VALIDATION, TEST, or LEFT_OUT.

    ``digests`` is uint8 (N, 16) and ``parts`` (N,) is where the source puts each image. A missing validation
    or test split gets a tenth of the distinct training images, by hash, or ``exact`` of them, but at least
    one and at most a fifth (in a small set this may move another image when one is added). A training image
    that is also held out, and a validation image that is also a test image, is LEFT_OUT. Raises
    :class:`DatasetError` when there are too few distinct images.
    """
    distinct, which = np.unique(digests.view("V16").ravel(), return_inverse=True)
    strictest = np.full(len(distinct), TRAIN)
    np.maximum.at(strictest, which, parts)
    left_out = parts < strictest[which]
    pool = np.flatnonzero(strictest == TRAIN)
    missing = [part for part in (VALIDATION, TEST) if part not in parts]
    if len(pool) <= len(missing):
        raise DatasetError(
            f"{name}: {len(pool)} different image{'s' * (len(pool) != 1)} for training: "
            f"at least {len(missing) + 1} are needed, to train, validate and test on different ones"
        )
    keys = np.array([_fraction(distinct[image].tobytes(), seed) for image in pool])
    bands = [np.sum((keys >= place * SHARE) & (keys < (place + 1) * SHARE)) for place in range(len(missing))]
    most = max(1, len(pool) // 5)
    counts = [min(max(1, int(band if exact is None else exact)), most) for band in bands]
    ends = np.cumsum([0, *counts])
    ranked = pool[np.argsort(keys, kind="stable")]
    for part, begin, end in zip(missing, ends[:-1], ends[1:], strict=True):
        strictest[ranked[begin:end]] = part
    return np.where(left_out, LEFT_OUT, strictest[which])


def _fraction(content: bytes, seed: int) -> float:
    key = hashlib.blake2b(
        content, digest_size=8, key=seed.to_bytes(8, "little"), person=b"attar split"
    ).digest()
    return int.from_bytes(key, "little") / 2**64
