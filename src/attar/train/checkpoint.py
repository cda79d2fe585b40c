"""A training state <-> one file: named arrays and a JSON record in an ``.npz``, written atomically, never pickle.

The weights are stored by the paths of their variables, so that a checkpoint made on one Keras backend loads on another.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attar.codec.files import atomic
from attar.errors import CheckpointError

RECORD = "record"  # the entry that holds the JSON
FORMAT = "attar checkpoint 1"


@dataclass(frozen=True)
class Checkpoint:
    """Named arrays (``weights/<path>``, ``optimizer/<name>``, ``average/<path>``) and what was known beside them."""

    arrays: Mapping[str, np.ndarray]
    record: Mapping[str, Any]

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays below ``prefix/``, without it."""
        return {name[len(prefix) + 1 :]: a for name, a in self.arrays.items() if name.startswith(prefix + "/")}


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    """Write a checkpoint under a temporary name and rename it, so that a kill leaves the old one whole.

    Raises:
        AttarError: if the file cannot be written.
    """
    text = json.dumps({"format": FORMAT, **record}, allow_nan=False)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{RECORD: np.frombuffer(text.encode(), np.uint8)}, **arrays)
        file.flush()
        os.fsync(file.fileno())


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: if the file is missing, damaged or no checkpoint of Attar's.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            record = json.loads(bytes(archive[RECORD]).decode())
            arrays = {name: archive[name] for name in archive.files if name != RECORD}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path}: is a folder, expected a checkpoint file such as run/checkpoints/best.npz") from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: not a checkpoint of Attar, or damaged ({error})") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of Attar, or of a later version (expected {FORMAT!r})")
    return Checkpoint(arrays, record)


def weights(network: Any) -> dict[str, np.ndarray]:
    """Every variable of a network (the state of its random generators too) by its path, as arrays."""
    import keras

    return {f"weights/{v.path}": np.asarray(keras.ops.convert_to_numpy(v)) for v in network.variables}


def restore_weights(network: Any, checkpoint: Checkpoint, source: str, *, averaged: bool = False) -> None:
    """Put a checkpoint's weights into a network of the same architecture.

    Args:
        network: a :class:`attar.train.network.Network`.
        checkpoint: what :func:`load` gave.
        source: the checkpoint's name in messages.
        averaged: take the running average of the weights where the checkpoint has one.

    Raises:
        CheckpointError: if names or shapes differ: the checkpoint belongs to another model.
    """
    stored = checkpoint.part("weights")
    if averaged:
        stored |= checkpoint.part("average")
    expected = {v.path: tuple(v.shape) for v in network.variables}
    faults = [f"{name} is missing" for name in expected if name not in stored]
    faults += [f"{name} is not in the model" for name in stored if name not in expected]
    faults += [
        f"{name} has shape {list(stored[name].shape)}, the model's has {list(shape)}"
        for name, shape in expected.items()
        if name in stored and stored[name].shape != shape
    ]
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise CheckpointError(f"{source}: checkpoint of another model: {'; '.join(faults[:3])}{more}")
    for variable in network.variables:
        variable.assign(stored[variable.path])
