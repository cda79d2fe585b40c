"""Steps of quantisation that differ from place to place, as they are trained: see :mod:`attar.codec.localsteps`.

For a weighted error, as that of MS-SSIM, and at low rates, the best step grows with what is there to code. Li et al.
2022 (arXiv:2207.05894) have a network predict steps; here, one number for each position is linear in the table indexes
that the hyper-latent chooses anyway.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from attar.codec import manifest
from attar.codec.localsteps import LARGEST_SHIFT
from attar.train.blocks import between_levels
from attar.train.integer import straight_through
from attar.train.tensors import to_numpy

PACE = 4.0
"""Gains and offsets are so many times their weights, which keeps pace with what a step of training moves."""


@keras.saving.register_keras_serializable("attar")
class LocalSteps(keras.layers.Layer):
    """One integer for each position: how many tables narrower its elements are, in steps as much wider.

    Begins with steps of 1 everywhere.

    Args:
        levels: number of gains and of offsets, from quality 0 to quality 1, linear between two.
    """

    def __init__(self, levels: int, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.levels = levels

    def build(self, shape: Any) -> None:
        """Make relative weights (L,), gains (levels, 1) and offsets (levels, 1)."""
        for name, size in (
            ("weights", (int(shape[-1]),)),
            ("gains", (self.levels, 1)),
            ("offsets", (self.levels, 1)),
        ):
            start = "ones" if name == "weights" else "zeros"
            setattr(self, f"local_{name}", self.add_weight(name=name, shape=size, initializer=start))

    def call(self, index: Any, quality: Any, training: bool = False) -> Any:
        """Table indexes (B, h, w, L) and quality (B,) in 0..1 -> shifts (B, h, w, 1), whole numbers."""
        mean = ops.mean(index * self.local_weights, axis=-1, keepdims=True)
        gain, offset = (
            PACE * between_levels(values, quality)[:, None, None, :]
            for values in (self.local_gains, self.local_offsets)
        )
        exact = gain * mean + offset
        inside = ops.clip(exact, -LARGEST_SHIFT, LARGEST_SHIFT)
        return straight_through(ops.floor(inside + 0.5), exact) if training else ops.floor(inside + 0.5)

    def set(self, gains: np.ndarray, offsets: np.ndarray) -> None:
        """Have gains and offsets, each (levels,), from now on."""
        for variable, values in ((self.local_gains, gains), (self.local_offsets, offsets)):
            variable.assign(np.asarray(values, np.float32)[:, None] / PACE)

    def exported(self, quality: np.ndarray, unit: float) -> manifest.LocalSteps:
        """As a bundle has it, for each quality, float32 in 0..1."""
        weights = to_numpy(self.local_weights).astype(np.float64) / self.local_weights.shape[0]
        gains, offsets = (
            PACE * to_numpy(between_levels(values, quality)).astype(np.float64)[:, 0]
            for values in (self.local_gains, self.local_offsets)
        )
        point, rest = manifest.WEIGHT_BITS, manifest.FRACTION_BITS - manifest.WEIGHT_BITS
        most = [2**bits for bits in manifest.STEP_BITS]
        return manifest.LocalSteps(
            _integers(weights, point, most[0]),
            _integers(gains, rest, most[1]),
            _integers(offsets, point + rest, most[2]),
            unit,
        )

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "levels": self.levels}


def _integers(values: np.ndarray, fraction: int, largest: int) -> tuple[int, ...]:
    """Fixed-point numbers with ``fraction`` bits behind the point, kept to ``largest`` in all."""
    return tuple(int(value) for value in np.clip(np.rint(values * 2.0**fraction), -largest, largest))
