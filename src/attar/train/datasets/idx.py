"""IDX, the format of MNIST and its relatives, and the digits that ship with the package.

An IDX file (http://yann.lecun.com/exdb/mnist/): two zero bytes, the type (0x08: unsigned bytes), the number
of dimensions, each dimension as a big-endian 32-bit integer, then the values, row by row.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
import zlib
from importlib import resources
from pathlib import Path

import numpy as np

from attar.errors import DatasetError
from attar.train.datasets.assign import TEST, TRAIN, digest
from attar.train.datasets.form import Form, conform
from attar.train.datasets.store import Images

__all__ = ["digits", "find_idx", "read_folder", "read_idx"]

MAX_BYTES = 2**31
"""The largest file that is read, unpacked: some fifty times MNIST."""
DEFLATE_RATIO = 1032
"""Deflate packs no more bytes than this into one (https://zlib.net/zlib_tech.html)."""
NAME = re.compile(r"(?:.*[-_])?(train|t10k|test)-images[-.]idx[34]-ubyte(?:\.gz)?", re.IGNORECASE)


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of images, plain or gzipped, as uint8 (N, H, W, C) with 1 or 3 channels.

    The sizes in the header are checked against the file before anything is allocated. Raises
    :class:`DatasetError`.
    """
    try:
        packed = path.stat().st_size
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not zipped:
                return _read(path, file, packed)
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _read(path, unzipped, packed * DEFLATE_RATIO)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error


def _read(path: Path, file: io.BufferedIOBase, available: int) -> np.ndarray:
    """Read the header, then the bytes that it announces; ``available`` is the most that the file can hold."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DatasetError(
            f"{path} is no IDX file: it begins with {magic.hex(' ') or 'nothing'}, expected 00 00 08 03"
        )
    if magic[2] != 0x08:
        raise DatasetError(f"{path}: values of type 0x{magic[2]:02x}, expected 0x08 (unsigned bytes)")
    rank = magic[3]
    if rank not in (3, 4):
        raise DatasetError(
            f"{path}: {rank} dimensions, expected 3 (images, height, width) or 4 (and channels)"
        )
    sizes = file.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise DatasetError(f"{path} is truncated: it ends within its header")
    shape = struct.unpack(f">{rank}I", sizes)
    if not all(shape) or (rank == 4 and shape[3] not in (1, 3)):
        raise DatasetError(
            f"{path}: dimensions {shape}, expected at least 1 image, row and column, and 1 or 3 channels"
        )
    total = math.prod(shape)
    if total > MAX_BYTES:
        raise DatasetError(
            f"{path}: dimensions {shape} make {total} bytes, more than the {MAX_BYTES} that are read"
        )
    if total > available:
        raise DatasetError(
            f"{path} is truncated: dimensions {shape} need {total} bytes, it can hold at most {available}"
        )
    values = np.empty(total, np.uint8)
    view, have = values.data, 0
    while have < total and (got := file.readinto(view[have:])):
        have += got
    if have < total:
        raise DatasetError(f"{path} is truncated: dimensions {shape} need {total} bytes, it holds {have}")
    if file.read(1):
        raise DatasetError(f"{path} goes on after the {total} bytes that its dimensions {shape} announce")
    return values.reshape(*shape[:3], -1)


def find_idx(folder: Path) -> dict[int, Path]:
    """Find a folder's ``train-images-idx3-ubyte`` (TRAIN) and ``t10k-images-idx3-ubyte`` (TEST), or one."""
    found: dict[int, Path] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror or error}") from error
    for path in paths:
        match = NAME.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        part = TRAIN if match[1].lower() == "train" else TEST
        if part in found and found[part].name.removesuffix(".gz") != path.name.removesuffix(".gz"):
            raise DatasetError(
                f"{folder} holds several data sets, {found[part].name} and {path.name}: "
                "put each in a folder of its own"
            )
        found.setdefault(part, path)
    return found


def read_folder(files: dict[int, Path], form: Form) -> tuple[Images, int]:
    """Read the files found by :func:`find_idx`; also give how many images each missing split is to get.

    The test file is held out whole, to be measured on and nothing else; a twelfth of the training file (5,000
    of MNIST's 60,000) is for validation, so that no choice of a model ever looks at the test file. A single
    file, whichever it is, gives a tenth each for validation and test.
    """
    arrays = {part: read_idx(path) for part, path in files.items()}
    shapes = {array.shape[1:] for array in arrays.values()}
    if len(shapes) > 1:
        sizes = " and ".join(f"{files[part].name} {array.shape[1:]}" for part, array in arrays.items())
        raise DatasetError(
            f"the images of {sizes} (height, width, channels) differ: they are not of one data set"
        )
    if len(arrays) == 1:
        (array,) = arrays.values()
        return images_of(array, np.full(len(array), TRAIN), form), len(array) // 10
    train, test = arrays[TRAIN], arrays[TEST]
    parts = np.repeat([TRAIN, TEST], [len(train), len(test)])
    return images_of(np.concatenate([train, test]), parts, form), len(train) // 12


def digits(form: Form) -> tuple[Images, int]:
    """Read the 10,000 images of MNIST's test file, which ships with the package."""
    file = resources.files("attar").joinpath("data", "digits", "t10k-images-idx3-ubyte.gz")
    with resources.as_file(file) as path:
        return read_folder({TEST: path}, form)


def images_of(array: np.ndarray, parts: np.ndarray, form: Form) -> Images:
    """Turn an array uint8 (N, H, W, C) into the images of a data set."""
    digests = np.frombuffer(b"".join(digest(image.tobytes()) for image in array), np.uint8).reshape(-1, 16)
    first = conform(array[0], form)
    if first.shape != array.shape[1:]:
        array = np.stack([conform(image, form) for image in array])
    height, width, channels = first.shape
    return Images(array.reshape(-1), np.tile((height, width), (len(array), 1)), channels, digests, parts)
