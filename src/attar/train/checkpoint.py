"""A training state <-> one file: named arrays and a JSON record in an ``.npz``, written whole, no pickle.

The weights are stored by the lasting names of their variables, so that a checkpoint made in another process,
or on another Keras backend, loads.
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
KEYS = {"model": dict, "digest": str, "config": dict, "dataset": str, "progress": dict}
EXAMPLE = "run/checkpoints/best.npz"


@dataclass(frozen=True)
class Checkpoint:
    """Arrays (``weights/<name>``, ``optimizer/<name>``, ``average/<name>``) and what else was known."""

    arrays: Mapping[str, np.ndarray]
    record: Mapping[str, Any]

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays below ``prefix/``, without it."""
        return below(self.arrays, prefix)


def below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with ``prefix/``, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)}


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    """Write a checkpoint under a temporary name and rename it, so that a kill leaves the old one whole.

    Raises:
        AttarError: if the file cannot be written.
    """
    text = json.dumps({"format": FORMAT, **record}, allow_nan=False)
    entries: dict[str, Any] = {RECORD: np.frombuffer(text.encode(), np.uint8), **arrays}
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **entries)
        file.flush()
        os.fsync(file.fileno())


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: if the file is missing, damaged or no checkpoint of Attar's.
    """
    if Path(path).is_dir():
        raise CheckpointError(f"{path}: is a folder, expected a checkpoint file such as {EXAMPLE}")
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as archive:
            record = json.loads(bytes(archive[RECORD]).decode())
            arrays = {name: archive[name] for name in archive.files if name != RECORD}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except Exception as error:  # a forged zip or npy header makes their readers raise almost anything
        raise CheckpointError(f"{path}: not a checkpoint of Attar, or damaged ({_brief(error)})") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not a checkpoint of Attar, or of a later version (expected {FORMAT!r})"
        )
    faults = [key for key, kind in KEYS.items() if not isinstance(record.get(key), kind)]
    # An entry that is no array comes as its bytes.
    faults += [
        name for name, a in arrays.items() if not (isinstance(a, np.ndarray) and a.dtype.kind in "fiu")
    ]
    if faults:
        raise CheckpointError(
            f"{path}: not a checkpoint of Attar, or damaged (missing or wrong: {', '.join(faults[:5])})"
        )
    return Checkpoint(arrays, record)


def _check_sizes(path: str | os.PathLike[str]) -> None:
    """Refuse an archive that could be larger in memory than it is on disk."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    size = Path(path).stat().st_size
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its entries are compressed")
    if sum(entry.file_size for entry in entries) > size or len({e.filename for e in entries}) != len(entries):
        raise ValueError("its entries overlap")


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def weights(network: Any) -> dict[str, np.ndarray]:
    """Every variable of a network (the state of its random generators too) by its lasting name, as arrays."""
    from attar.train.tensors import to_numpy

    return {f"weights/{name}": to_numpy(variable) for name, variable in network.named_variables().items()}


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
    variables = network.named_variables()
    expected = {name: tuple(variable.shape) for name, variable in variables.items()}
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
    broken = [name for name in expected if not np.isfinite(stored[name]).all()]
    if broken:
        raise CheckpointError(f"{source}: damaged: {', '.join(broken[:3])} holds values that are not finite")
    for name, variable in variables.items():
        variable.assign(stored[name])
