"""Image data sets of TensorFlow Datasets, through its reader that needs no TensorFlow.

https://www.tensorflow.org/datasets/data_source. It reads files in a random-access format (array_record). A
set that is not there yet is downloaded and prepared in that format; some sets' code for preparing, not for
reading, calls TensorFlow.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attar.errors import DatasetError, MissingExtraError
from attar.train.datasets.assign import TEST, TRAIN, VALIDATION
from attar.train.datasets.decode import Record

__all__ = ["find"]

HALVED = frozenset({"mnist", "cifar10"})
"""Sets whose test split is halved, into validation and test."""
HELD_OUT = {"validation": VALIDATION, "val": VALIDATION, "valid": VALIDATION, "dev": VALIDATION, "test": TEST}


def find(name: str, data_dir: Path | None) -> tuple[list[Record], str, bytes]:
    """Find (or else download and prepare) a set: its records, its place, and what stands for its state.

    ``mnist`` and ``cifar10`` have their test split halved into validation and test. Of any other set the
    splits ``validation`` and ``test`` are held out and ``train`` is to train on, or all that is not held out
    if there is no ``train``. All classes are used. Raises :class:`MissingExtraError` and
    :class:`DatasetError`.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise MissingExtraError("tensorflow-datasets", "tfds") from error
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.is_prepared():
            with contextlib.redirect_stdout(sys.stderr):  # it says there what it does
                builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # tfds, its data sets and their servers raise anything
        raise DatasetError(_not_prepared(name, data_dir, error)) from error
    key = _image_feature(name, builder.info.features, tfds.features)
    features = builder.info.features
    encoded = {
        each: tfds.decode.SkipDecoding()
        for each in features
        if isinstance(features[each], tfds.features.Image)
    }
    try:
        sources = builder.as_data_source(decoders=encoded)
    except Exception as error:
        raise DatasetError(_not_readable(name, builder, error)) from error
    records: list[Record] = []
    for split, part, first, last in _parts(
        builder.name, {split: len(source) for split, source in sources.items()}
    ):
        read = partial(_read, sources[split], threading.Lock(), key)
        records.extend(
            Record(f"{name}/{split}/{number}", part, partial(read, number)) for number in range(first, last)
        )
    if not records:
        raise DatasetError(f"{name}: the set in {builder.data_path} holds no images")
    state = [
        (split, info.num_examples, info.num_bytes) for split, info in sorted(builder.info.splits.items())
    ]
    return records, str(builder.data_path), repr((key, state)).encode()


def _parts(name: str, sizes: dict[str, int]) -> list[tuple[str, int, int, int]]:
    """Say which split each range of images belongs to: (tfds split, part, first, last + 1)."""
    if name in HALVED and set(sizes) == {"train", "test"}:
        half, whole = sizes["test"] // 2, sizes["test"]
        return [
            ("train", TRAIN, 0, sizes["train"]),
            ("test", VALIDATION, 0, half),
            ("test", TEST, half, whole),
        ]
    training = {"train"} & set(sizes) or set(sizes) - set(HELD_OUT) or set(sizes)
    return [
        (split, TRAIN if split in training else HELD_OUT[split], 0, size)
        for split, size in sizes.items()
        if split in training or split in HELD_OUT
    ]


def _read(source: Sequence[Any], lock: threading.Lock, key: str, number: int) -> bytes:
    try:
        with lock:  # the reader makes no promise to threads
            data = source[number][key]
    except Exception as error:  # a damaged record: array_record and protobuf have errors of their own
        raise DatasetError(f"the record cannot be read: {_first_line(error)}") from error
    return bytes(data)


def _image_feature(name: str, features: Any, kinds: Any) -> str:
    images = sorted(
        key
        for key, feature in (features.items() if isinstance(features, kinds.FeaturesDict) else ())
        if isinstance(feature, kinds.Image) and not isinstance(feature, kinds.LabeledImage)
    )
    key = "image" if "image" in images else images[0] if len(images) == 1 else None
    if key is None:
        raise DatasetError(
            f"{name}: no feature 'image', and {len(images) or 'no'} image features ({', '.join(images)}): "
            "expected 'image', or a single one of any name"
        )
    kind = np.dtype(features[key].np_dtype).name
    if kind not in ("uint8", "uint16"):
        raise DatasetError(f"{name}: the images of its feature {key!r} are {kind}, expected uint8 or uint16")
    return key


def _not_prepared(name: str, data_dir: Path | None, error: Exception) -> str:
    where = data_dir or "its default folder, ~/tensorflow_datasets"
    if any(isinstance(cause, ImportError) and cause.name == "tensorflow" for cause in _causes(error)):
        advice = (
            "preparing this set (not reading it) needs TensorFlow: pip install tensorflow, or prepare it "
            "elsewhere with download_and_prepare(file_format='array_record') and copy the folder"
        )
    else:
        advice = (
            "check the name and the network, or prepare it there with "
            "download_and_prepare(file_format='array_record')"
        )
    return (
        f"TensorFlow Datasets has no {name!r} ready in {where} and cannot prepare it "
        f"({_first_line(error)}): {advice}"
    )


def _not_readable(name: str, builder: Any, error: Exception) -> str:
    found = (
        ", ".join(sorted(kind.value for kind in builder.info.available_file_formats())) or "an unknown format"
    )
    return (
        f"{name}: the set in {builder.data_path} is not readable without TensorFlow "
        f"({_first_line(error)}): it is in {found}; prepare it in another folder with "
        "download_and_prepare(file_format='array_record')"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
