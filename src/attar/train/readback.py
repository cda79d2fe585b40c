"""Exported networks read back from their files: what runs them, and the images that they were made for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from attar.train import (
    graphs,
    layers,  # noqa: F401 - registers the custom layers that the files name
)
from attar.train.tensors import to_numpy


def read_back(path: Path, file_format: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs an exported network: ``onnx``, ``keras``, ``h5`` or ``saved-model``.

    Raises what the format's own loader raises.
    """
    if file_format == "onnx":
        return graphs.runner(path.read_bytes())
    if file_format == "saved-model":
        import tensorflow as tf

        loaded = tf.saved_model.load(str(path))
        return lambda values: np.asarray(loaded.serve(values))
    model = keras.models.load_model(path, compile=False)
    return lambda values: run_keras(model, values)


def run_keras(model: Any, values: np.ndarray) -> np.ndarray:
    """Output of a Keras model in inference, as an array."""
    return to_numpy(model(values, training=False))


def input_shape(path: Path, file_format: str) -> Sequence[int | None]:
    """Height, width and channels that an exported network was made for, None where it does not say."""
    sizes: list[int | None] = []
    if file_format == "onnx":
        dims = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim
        sizes = [dim.dim_value or None for dim in dims[1:]]
    elif file_format != "saved-model":
        sizes = list(keras.models.load_model(path, compile=False).input_shape[1:])
    return sizes if len(sizes) == 3 else [None, None, None]
