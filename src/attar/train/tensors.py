"""Tensors of any Keras backend -> arrays."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def to_numpy(tensor: Any) -> np.ndarray:
    """A copy of a tensor or of a Keras variable as an array; bfloat16 becomes float32.

    Keras's own conversion makes NumPy 2 warn at every PyTorch tensor.
    """
    value = tensor.value if isinstance(tensor, keras.Variable) else tensor
    if keras.backend.backend() != "torch" or isinstance(value, np.ndarray):
        return np.array(keras.ops.convert_to_numpy(value))
    value = value.detach().cpu()
    return np.array((value.float() if "bfloat16" in str(value.dtype) else value).numpy())


def is_compiling() -> bool:
    """Whether PyTorch's compiler is reading the code that runs."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.compiler.is_compiling()
