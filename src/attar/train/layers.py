"""Attar's own Keras layers: pixel scaling and clipping, the quantiser, the factorized prior.

They run on every Keras backend. Arrays are channels last; ``B`` is the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import ops

from attar.train import blocks, integer
from attar.train.tensors import to_numpy


@keras.saving.register_keras_serializable("attar")
class PixelsToUnit(keras.layers.Layer):
    """uint8 pixels 0..255 -> float 0..1, the first thing every network does."""

    def call(self, pixels: Any) -> Any:
        """(B, H, W, C) uint8 or float in 0..255 -> float in 0..1."""
        return ops.cast(pixels, self.compute_dtype) / 255.0


@keras.saving.register_keras_serializable("attar")
class ClipToUnit(keras.layers.Layer):
    """Clip to [0, 1]; the last thing every decoder does.

    The gradient passes straight through: an output beyond the range that is right once clipped has a zero
    gradient already, and one that is wrong must be able to come back, which a hard clip forbids.
    """

    def call(self, values: Any, training: bool = False) -> Any:
        """Any float tensor -> the same shape in [0, 1], always float32."""
        values = ops.cast(values, "float32")
        clipped = ops.clip(values, 0.0, 1.0)
        return values + ops.stop_gradient(clipped - values) if training else clipped


@keras.saving.register_keras_serializable("attar")
class Quantizer(keras.layers.Layer):
    """Latents to what the file can hold: integers.

    Inference rounds to the nearest integer (half to even, as the codec does). Training returns two values,
    because the two uses of a latent want different relaxations: the decoder sees the rounded latent with a
    straight-through gradient (Theis et al. 2017), the rate sees the latent plus uniform noise, whose density
    is differentiable (Balle et al. 2017, eq. 9); the mix is that of Minnen and Singh 2020, section 3.2. Noise
    overstates the rate of small latents, so the last stage of a training may do without it, soft then hard
    (Guo et al. 2021, arXiv:2104.05168).
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def draw(self, shape: Any) -> Any:
        """Noise in -0.5..0.5 for a latent of ``shape``, float32."""
        return keras.random.uniform(shape, -0.5, 0.5, dtype="float32", seed=self.seed_generator)

    def call(
        self, latent: Any, training: bool = False, noise: Any = None, noiseless: bool = False
    ) -> tuple[Any, Any]:
        """(B, ..., C) float -> (for the decoder, for the rate), both (B, ..., C) float32.

        ``noise``: what :meth:`draw` gave, for training; None draws it. ``noiseless``: of the rounded one.
        """
        latent = ops.cast(latent, "float32")
        rounded = ops.round(latent)
        if not training:
            return rounded, rounded
        passed = latent + ops.stop_gradient(rounded - latent)
        if noiseless:
            return passed, passed
        if noise is None:
            noise = self.draw(ops.shape(latent))
        return passed, latent + noise

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable("attar")
class FactorizedPrior(keras.layers.Layer):
    """One learned distribution for each latent channel: a mixture of logistics, integrated over unit bins.

    The fully factorized model of Balle et al. 2018 (appendix 6.1) with the mixture of Cheng et al. 2020
    (eq. 9) in place of its small network: as flexible here, and cheaper. Bits are computed from logarithms
    throughout, so that a latent far outside keeps its exact cost and a gradient that leads back.

    Args:
        components: logistics in the mixture of one channel.
        spread: scale of the widest logistic before training, in symbols.
    """

    def __init__(self, components: int = 3, spread: float = 3.0, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if components < 1 or spread <= 0:
            raise ValueError(
                f"FactorizedPrior: components must be >= 1 and spread > 0, got {components} and {spread}"
            )
        self.components = components
        self.spread = spread

    def build(self, latent_shape: tuple[int | None, ...]) -> None:
        """Make (C, K) logits, means and log-scales for a latent (B, ..., C)."""
        shape = (int(latent_shape[-1] or 0), self.components)
        log_scales = [math.log(self.spread) - 1.0 * k for k in range(self.components)]
        start = keras.initializers.Constant(np.broadcast_to(np.asarray(log_scales, "float32"), shape).copy())
        # Distinct means break the symmetry between components.
        offsets = np.linspace(-0.5, 0.5, self.components) if self.components > 1 else np.zeros(1)
        means = keras.initializers.Constant(np.broadcast_to(offsets.astype("float32"), shape).copy())
        self.logits = self.add_weight(name="logits", shape=shape, initializer="zeros")
        self.means = self.add_weight(name="means", shape=shape, initializer=means)
        self.log_scales = self.add_weight(name="log_scales", shape=shape, initializer=start)

    def call(self, symbols: Any) -> Any:
        """(B, ..., C) float -> bits of each element, the same shape: -log2 of the unit bin around it."""
        centred = ops.expand_dims(symbols, -1) - self.means  # (B, ..., C, K)
        inverse = ops.exp(-self.log_scales)
        # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)): no digits are lost in the tails.
        log_mass = (
            ops.log_sigmoid((0.5 + centred) * inverse)
            + ops.log_sigmoid((0.5 - centred) * inverse)
            + ops.log(-ops.expm1(-inverse))
        )
        log_weights = ops.log_softmax(self.logits, axis=-1)
        return ops.logsumexp(log_mass + log_weights, axis=-1) * (-1.0 / math.log(2.0))

    def probabilities(self, minimum: int, maximum: int) -> np.ndarray:
        """Probability of every integer in minimum..maximum, float64 (C, maximum - minimum + 1)."""
        logits, means, log_scales = (
            to_numpy(v).astype(np.float64) for v in (self.logits, self.means, self.log_scales)
        )
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        symbols = np.arange(minimum, maximum + 1, dtype=np.float64)
        # By symmetry bins are evaluated in the left tail, where a difference of sigmoids keeps its digits.
        left = -np.abs(symbols[None, :, None] - means[:, None, :])  # (C, N, K)
        scale = np.exp(log_scales)[:, None, :]
        mass = _sigmoid((left + 0.5) / scale) - _sigmoid((left - 0.5) / scale)
        return (mass * weights[:, None, :]).sum(-1)

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "components": self.components, "spread": self.spread}


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -x))  # keeps its digits in the left tail


LAYERS: Mapping[str, type] = MappingProxyType(
    {cls.__name__: cls for cls in (PixelsToUnit, ClipToUnit, Quantizer, FactorizedPrior)}
    | {**blocks.BLOCKS, **integer.INTEGER_LAYERS}
)
"""The layers that a model.json may name beside those of ``keras.layers``."""
