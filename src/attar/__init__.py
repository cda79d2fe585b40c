"""Attar: train, export, use and measure autoencoder image codecs.

::

    codec = attar.load("digits")             # an installed bundle, or the path of one
    data = codec.compress(image)             # uint8 array, Pillow image or image file -> bytes
    pixels = codec.decompress(data)          # -> uint8 (H, W, C)

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from attar.errors import (
    AttarError,
    BundleError,
    CheckpointError,
    DatasetError,
    ExportError,
    FormatError,
    ImageError,
    MissingExtraError,
    ModelMissingError,
    SpecError,
    TargetError,
    TrainingError,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from attar.codec.codec import Codec, Source, load
    from attar.codec.pillow import register_pillow

# ONNX Runtime from 1.29 on reports its use to its maker, and keeps a device's id on disk, unless it finds this.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

__all__ = [
    "AttarError",
    "BundleError",
    "CheckpointError",
    "Codec",
    "DatasetError",
    "ExportError",
    "FormatError",
    "ImageError",
    "MissingExtraError",
    "ModelMissingError",
    "SpecError",
    "TargetError",
    "TrainingError",
    "__version__",
    "compress",
    "decompress",
    "load",
    "register_pillow",
]

LAZY = {
    "Codec": "attar.codec.codec",
    "load": "attar.codec.codec",
    "register_pillow": "attar.codec.pillow",
}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(importlib.import_module(LAZY[name]), name)
    raise AttributeError(f"module 'attar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def compress(image: Source, *, model: str | os.PathLike[str] | None = None, convert: bool = False) -> bytes:
    """The bytes of a ``.attar`` file; for many images, :func:`load` a codec once and use its methods.

    ``image``: uint8 (H, W), (H, W, 1) or (H, W, 3), a Pillow image, or an image file. ``model``: a bundle's
    path, or the name of an installed one. See :meth:`attar.Codec.compress`.
    """
    from attar.codec.codec import load

    return load(model).compress(image, convert=convert)


def decompress(data: bytes, *, model: str | os.PathLike[str] | None = None) -> NDArray[np.uint8]:
    """Pixels uint8 (H, W, C) of a ``.attar`` file, with ``model`` or the installed bundle that it names."""
    from attar.codec.codec import load
    from attar.codec.container import read_header

    return load(model if model is not None else read_header(data).model).decompress(data)
