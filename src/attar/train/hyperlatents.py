"""What codes the hyper-latents where a model.json has the block ``hyper_prior``: four passes.

::

    pass k of 0..3    symbols of the passes before (else 0), which they are, and the quality
                      --hyper_prior (integers)--> for every element: a scale, a mean and eighths of the mean

A hyper-latent of a flat part of an image costs what the same one in foliage does, where every channel has one
distribution; given its neighbours and the quality it is nearly free. Passes alternate from position to position
and from channel to channel (as the latent's do, Li et al. 2022, arXiv:2207.05894). Means must be whole numbers
as tables are, for the integer networks read the symbols that they give; their fractions are in the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from attar import spec as specs
from attar.codec.manifest import HYPER_LEVELS, HYPER_PASSES
from attar.errors import SpecError
from attar.train import network
from attar.train.integer import IntegerInput, straight_through

SCALES, SMALLEST, LARGEST = 24, 0.05, 40.0
EIGHTHS = 4
"""Fractions of a mean: -4/8 to 4/8."""
STEP = math.log(LARGEST / SMALLEST) / (SCALES - 1)
FRACTIONS = 2 * EIGHTHS + 1
TABLES = SCALES * FRACTIONS


def pass_of(height: int, width: int, channels: int) -> Any:
    """The pass of every element, float32 (height, width, channels): 2 (row mod 2) + column mod 2 + channel, mod 4."""
    row, column, channel = (ops.arange(size, dtype="int32") for size in (height, width, channels))
    total = 2 * (row % 2)[:, None, None] + (column % 2)[:, None] + channel
    return ops.cast(total % HYPER_PASSES, "float32")


def known(symbols: Any, number: int, level: Any) -> tuple[Any, Any]:
    """Inputs of the network in pass ``number``: symbols (B, h, w, Z) of the passes before, and (B, h, w, 5).

    The latter: for each of four consecutive channels, whether it is known, and ``level`` (B,), quality / 8.
    """
    height, width, channels = symbols.shape[1:]
    seen = ops.cast(pass_of(height, width, channels) < number, "float32")
    blank = ops.zeros_like(symbols[..., :1])
    planes = ops.cast(pass_of(height, width, HYPER_PASSES) < number, "float32")
    return symbols * seen, ops.concatenate([blank + planes, blank + level[:, None, None, None]], axis=-1)


def run(model: Any, symbols: Any, level: Any, training: bool) -> Any:
    """What the network says of every element of symbols (B, h, w, Z) in its pass, all at once: (B, h, w, 3 Z)."""
    given = [known(symbols, number, level) for number in range(HYPER_PASSES)]
    inputs = [ops.concatenate(items, axis=0) for items in zip(*given, strict=True)]
    found = ops.split(model(inputs, training=training), HYPER_PASSES, axis=0)
    turn = ops.tile(pass_of(*symbols.shape[1:]), (1, 1, 3))
    return sum(ops.where(turn == number, found[number], 0.0) for number in range(HYPER_PASSES))


def levels(quality: Any) -> Any:
    """Quality (B,) in 0..1 -> what the network is told of it, whole numbers."""
    return ops.floor(ops.round(quality * 99.0) / HYPER_LEVELS)


@keras.saving.register_keras_serializable("attar")
class HyperTables(keras.layers.Layer):
    """Output of the block ``hyper_prior``, integers (B, h, w, 3 Z) -> tables and means, integers (B, h, w, 2 Z).

    Tables are in the order of scales, and of fractions of the mean within a scale.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def parts(self, values: Any, training: bool = False) -> tuple[Any, Any, Any]:
        """Scale 0..23, eighths of the mean -4..4 and the mean, each (B, h, w, Z)."""
        channels = values.shape[-1] // 3
        scale, fraction, mean = (values[..., k * channels : (k + 1) * channels] for k in range(3))

        def kept(value: Any, lowest: float, highest: float) -> Any:
            inside = ops.clip(value, lowest, highest)
            return straight_through(inside, value) if training else inside

        return kept(scale + SCALES / 2, 0.0, SCALES - 1.0), kept(fraction, -EIGHTHS, EIGHTHS), mean

    def call(self, values: Any) -> Any:
        """See the class."""
        scale, fraction, mean = self.parts(values)
        return ops.concatenate([FRACTIONS * scale + (fraction + EIGHTHS), mean], axis=-1)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Two thirds of the channels."""
        return (*shape[:-1], 2 * (int(shape[-1] or 0) // 3))

    def bits(self, symbols: Any, scale: Any, fraction: Any, mean: Any) -> Any:
        """Bits of symbols under logistics, all of one shape."""
        inverse = ops.exp(-(scale * STEP + math.log(SMALLEST)))
        return logistic_bits(symbols - mean - fraction / 8, inverse)

    def probabilities(self, minimum: int, maximum: int) -> np.ndarray:
        """Of every integer in minimum..maximum less the mean, in each table; float64 (tables, count)."""
        scale = np.repeat(SMALLEST * np.exp(STEP * np.arange(SCALES)), FRACTIONS)[:, None]
        fraction = np.tile(np.arange(-EIGHTHS, EIGHTHS + 1) / 8, SCALES)[:, None]
        return logistic_mass(np.arange(minimum, maximum + 1) - fraction, scale)


def build(
    spec: specs.ModelSpec, chains: Mapping[str, Any], z: Any, parts: dict[str, Any]
) -> HyperTables | None:
    """Make the network of the block: as it is trained, and as a bundle has it. None without it; or SpecError."""
    if "hyper_prior" not in chains:
        return None
    known = keras.Input((*z.shape[1:3], HYPER_PASSES + 1), name="known", dtype="float32")
    integers = [
        IntegerInput(name=f"hyper_prior_{name}")(item) for name, item in (("symbols", z), ("known", known))
    ]
    both = keras.layers.Concatenate(name="hyper_prior_input", dtype="float32")(integers)
    raw = network.chain(both, chains["hyper_prior"], spec)
    if int(raw.shape[-1]) != 3 * int(z.shape[-1]):
        last = spec.blocks["hyper_prior"][-1].path
        raise SpecError(
            spec.name, [f"{last}: gives {raw.shape[-1]} channels, expected three for each of {z.shape[-1]}"]
        )
    tables = HyperTables(name="hyper_tables")
    parts["hyper_choice"] = keras.Model([z, known], raw, name="hyper_choice")
    parts["hyper_prior"] = keras.Model([z, known], tables(raw), name="hyper_prior")
    return tables


def logistic_bits(residuals: Any, inverse: Any) -> Any:
    """Bits of the unit bin around ``residuals`` under a logistic of scale 1 / ``inverse``."""
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)) keeps its digits in the tails.
    mass = (
        ops.log_sigmoid((0.5 + residuals) * inverse)
        + ops.log_sigmoid((0.5 - residuals) * inverse)
        + ops.log(-ops.expm1(-inverse))
    )
    return mass * (-1.0 / math.log(2.0))


def logistic_mass(residuals: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Probability of the unit bin around ``residuals``, float64; by symmetry in the left tail, which keeps digits."""
    left = -np.abs(np.asarray(residuals, np.float64))
    upper, lower = (0.5 * (1 + np.tanh(0.5 * (left + side) / scale)) for side in (0.5, -0.5))
    return np.asarray(upper - lower)
