"""Every error that Attar raises on purpose.

::

    AttarError
    ├── SpecError          a model.json that cannot be built           (also ValueError)
    ├── DatasetError       a data set that cannot be read or split
    ├── TrainingError      a run that cannot go on (NaN, ...)
    ├── CheckpointError    a checkpoint that is damaged or of another model
    ├── ExportError        an export that does not reproduce the network
    ├── ImageError         an image that cannot be read, or that a model cannot take (also ValueError)
    ├── FormatError        a .attar file that is damaged or foreign    (also ValueError)
    ├── BundleError        a bundle that is damaged or foreign         (also ValueError)
    ├── ModelMissingError  a bundle that is not installed              (also LookupError)
    ├── TargetError        a size or quality target out of reach
    └── MissingExtraError  an optional dependency that is not installed (also ImportError)

A message says what happened, what was expected, and what to do, with the values.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AttarError",
    "BundleError",
    "CheckpointError",
    "DatasetError",
    "ExportError",
    "FormatError",
    "ImageError",
    "MissingExtraError",
    "ModelMissingError",
    "SpecError",
    "TargetError",
    "TrainingError",
]


class AttarError(Exception):
    """Base of every error that Attar raises on purpose."""

    exit_code = 1
    """What the command line exits with: 1 input failed, 2 usage, 3 target out of reach, 4 model missing."""


class SpecError(AttarError, ValueError):
    """A model.json that cannot be built. ``faults`` lists every fault found, not only the first."""

    exit_code = 2

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        self.source = source
        self.faults = tuple(faults)
        head = f"{source}: {len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        super().__init__(
            "\n  ".join([head, *self.faults]) if len(self.faults) != 1 else f"{source}: {self.faults[0]}"
        )

    def __reduce__(self) -> tuple[type[SpecError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.source, self.faults)  # errors cross between processes


class DatasetError(AttarError):
    """A data set that cannot be found, read or split."""


class TrainingError(AttarError):
    """A training run that cannot go on; the message names the step and the batch."""


class CheckpointError(AttarError):
    """A checkpoint that is damaged, or that belongs to another model."""

    exit_code = 4


class ExportError(AttarError):
    """An export that was refused because it does not reproduce the trained network."""


class ImageError(AttarError, ValueError):
    """An image that cannot be read, or that a model cannot take."""


class FormatError(AttarError, ValueError):
    """A ``.attar`` file that is damaged, truncated or foreign."""


class BundleError(AttarError, ValueError):
    """A bundle (``.attarmodel``) that is damaged or foreign."""

    exit_code = 4


class ModelMissingError(AttarError, LookupError):
    """A bundle that is needed and not installed; the message says which and how to get it."""

    exit_code = 4


class TargetError(AttarError):
    """A size or quality target that no setting of the model reaches."""

    exit_code = 3


class MissingExtraError(AttarError, ImportError):
    """An optional dependency that is not installed; the message names the ``pip install`` to type."""

    exit_code = 2

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{package} is not installed: pip install 'attar[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.package, self.extra)
