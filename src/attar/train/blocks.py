"""Keras layers of a photo codec: pixel (un)shuffling, gated blocks, gains that the quality chooses.

They run on every Keras backend. Arrays are channels last, (B, H, W, C).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import ops

from attar.train.tensors import is_compiling

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("attar")
class PixelUnshuffle(keras.layers.Layer):
    """Space to depth (Shi et al. 2016, inverted): blocks of ``factor`` x ``factor`` pixels become channels.

    It takes the place of strided convolutions: nothing is lost, and the next 1x1 convolution sees the block.
    """

    def __init__(self, factor: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = _whole(factor, "PixelUnshuffle: factor", 2, 64)

    def call(self, values: Any) -> Any:
        """(B, H, W, C) -> (B, H / factor, W / factor, factor^2 C)."""
        batch, height, width, channels = ops.shape(values)
        n = self.factor
        blocks = ops.reshape(values, (batch, height // n, n, width // n, n, channels))
        blocks = ops.transpose(blocks, (0, 1, 3, 2, 4, 5))
        return ops.reshape(blocks, (batch, height // n, width // n, n * n * channels))

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Raise ValueError for a height or width that the factor does not divide."""
        batch, height, width, channels = shape
        n = self.factor
        if (height or n) % n or (width or n) % n:
            raise ValueError(f"PixelUnshuffle: {height} x {width} is no multiple of {n} x {n}")
        return batch, height and height // n, width and width // n, channels and n * n * channels

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("attar")
class PixelShuffle(keras.layers.Layer):
    """Depth to space (Shi et al. 2016, arXiv:1609.05158): ``factor^2`` channels become a block of pixels."""

    def __init__(self, factor: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = _whole(factor, "PixelShuffle: factor", 2, 64)

    def call(self, values: Any) -> Any:
        """(B, H, W, factor^2 C) -> (B, factor H, factor W, C)."""
        batch, height, width, channels = ops.shape(values)
        n = self.factor
        blocks = ops.reshape(values, (batch, height, width, n, n, channels // (n * n)))
        blocks = ops.transpose(blocks, (0, 1, 3, 2, 4, 5))
        return ops.reshape(blocks, (batch, height * n, width * n, channels // (n * n)))

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Raise ValueError for a number of channels that is no multiple of ``factor^2``."""
        batch, height, width, channels = shape
        n = self.factor
        if channels is None or channels % (n * n):
            raise ValueError(f"PixelShuffle: {channels} channels are no multiple of {n * n}")
        return batch, height and height * n, width and width * n, channels // (n * n)

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "factor": self.factor}


class _Residual(keras.layers.Layer):
    """1x1 expansion, depthwise convolution and 1x1 projection, added to the input."""

    halves = 1
    """Channels that are spread for each that is projected."""
    first: Any = "glorot_uniform"
    """Initial weights of the expansion."""
    last = 0.1
    """Scale of the projection's variance at the beginning: a small one lets a deep stack begin as the identity."""

    def __init__(self, expansion: float, kernel_size: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        if not 0 < expansion <= 16:
            raise ValueError(f"{name}: expansion is {expansion}, expected above 0 and at most 16")
        self.expansion = expansion
        self.kernel_size = _whole(kernel_size, f"{name}: kernel_size", 1, 31)

    def build(self, shape: Shape) -> None:
        """Make the three convolutions for an input (B, H, W, C)."""
        channels = int(shape[-1] or 0)
        hidden = max(1, round(self.expansion * channels))
        wide, policy = self.halves * hidden, self.dtype_policy
        small = keras.initializers.VarianceScaling(self.last)
        self.expand = keras.layers.Conv2D(wide, 1, kernel_initializer=self.first, name="expand", dtype=policy)
        # Keras would count all channels in the fan-in of a depthwise kernel, and begin far too small.
        lecun = keras.initializers.RandomNormal(stddev=1 / self.kernel_size)
        self.spread = keras.layers.DepthwiseConv2D(
            self.kernel_size, padding="same", depthwise_initializer=lecun, name="spread", dtype=policy
        )
        self.project = keras.layers.Conv2D(
            channels, 1, kernel_initializer=small, name="project", dtype=policy
        )
        self.expand.build(shape)
        self.spread.build((*shape[:-1], wide))
        self.project.build((*shape[:-1], hidden))
        for part in (self.expand, self.spread, self.project):
            part.trainable = bool(self.trainable)  # they were not there yet when it was set

    def call(self, values: Any) -> Any:
        """(B, H, W, C) -> (B, H, W, C)."""
        expand, spread, project = self.expand, self.spread, self.project
        if is_compiling():
            # A compiler fuses shifted products with what is around them, which it cannot do with a convolution.
            expand, spread, project = _pointwise(expand), _shifted(spread), _pointwise(project)
        return values + project(self._hidden(values, expand, spread))

    def _hidden(self, values: Any, expand: Any, spread: Any) -> Any:
        """What is projected."""
        raise NotImplementedError

    def compute_output_shape(self, shape: Shape) -> Shape:
        """The shape of the input."""
        return shape

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "expansion": self.expansion, "kernel_size": self.kernel_size}


@keras.saving.register_keras_serializable("attar")
class GatedBlock(_Residual):
    """1x1 expansion, depthwise convolution, gate, 1x1 projection, added to the input.

    The building block of the fast learned codecs (EVC, Wang et al. 2023, arXiv:2302.05071; DCVC-RT, Jia et
    al. 2025, arXiv:2502.20762): dense mixing of channels where it is cheap, spatial mixing where it costs
    nothing, and a gate (a times sigmoid of b) in place of GDN. It costs ``(3 e C + k^2 2 e) C`` MACs a
    position for C channels, expansion e and kernel k.

    A sigmoid is all but linear for small features: see :class:`InvertedBlock` for what comes from an image.

    Args:
        expansion: hidden channels per channel.
        kernel_size: of the depthwise convolution.
    """

    halves = 2

    def __init__(self, expansion: float = 1.0, kernel_size: int = 3, **kwargs: Any) -> None:
        super().__init__(expansion, kernel_size, **kwargs)

    def _hidden(self, values: Any, expand: Any, spread: Any) -> Any:
        content, gate = ops.split(spread(expand(values)), 2, axis=-1)
        return content * ops.sigmoid(gate)


@keras.saving.register_keras_serializable("attar")
class InvertedBlock(_Residual):
    """1x1 expansion, rectifier, depthwise convolution, rectifier, 1x1 projection, added to the input.

    The inverted residual of Sandler et al. 2018 (arXiv:1801.04381) with leaky rectifiers, which the fast
    learned codecs build on, too (EVC, Wang et al. 2023, arXiv:2302.05071). A rectifier bends features of any
    size, where the sigmoid of a :class:`GatedBlock` is all but linear for the small ones that details of an
    image are. It costs ``(2 e C + k^2 e) C`` MACs a position for C channels, expansion e and kernel k.

    Args:
        expansion: hidden channels per channel.
        kernel_size: of the depthwise convolution.
        slope: of the rectifiers below 0.
    """

    first, last = "he_normal", 0.25

    def __init__(
        self, expansion: float = 1.5, kernel_size: int = 3, slope: float = 0.1, **kwargs: Any
    ) -> None:
        super().__init__(expansion, kernel_size, **kwargs)
        if not 0 <= slope <= 1:
            raise ValueError(f"InvertedBlock: slope is {slope}, expected 0 to 1")
        self.slope = slope

    def _hidden(self, values: Any, expand: Any, spread: Any) -> Any:
        hidden = spread(ops.leaky_relu(expand(values), self.slope))
        return ops.leaky_relu(hidden, self.slope)

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "slope": self.slope}


def _pointwise(layer: Any) -> Any:
    """A 1x1 convolution as a product of matrices."""
    return lambda values: ops.matmul(values, layer.kernel[0, 0]) + layer.bias


def _shifted(layer: Any) -> Any:
    """A depthwise convolution as a sum of shifted products."""

    from torch.nn.functional import pad  # Keras's own breaks the graph

    def spread(values: Any) -> Any:
        size = layer.kernel_size[0]
        before, (height, width) = (size - 1) // 2, values.shape[1:3]
        after = size - 1 - before
        padded, total = pad(values, (0, 0, before, after, before, after)), layer.bias
        for row in range(size):
            for column in range(size):
                part = padded[:, row : row + height, column : column + width]
                total = total + part * layer.kernel[row, column, :, 0]
        return total

    return spread


class _ByQuality(keras.layers.Layer):
    """A layer that has a vector for each of some levels of quality, and takes (values, quality)."""

    takes_quality = True

    def __init__(self, levels: int = 8, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.levels = _whole(levels, f"{type(self).__name__}: levels", 2, 256)

    def compute_output_shape(self, shape: Any) -> Shape:
        """The shape of the values."""
        return tuple(shape[0])

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "levels": self.levels}


@keras.saving.register_keras_serializable("attar")
class QualityGain(_ByQuality):
    """A gain for each channel that depends on the quality: one model for all rates.

    The gain unit of Cui et al. 2021 (arXiv:2003.02012): ``levels`` vectors of gains, interpolated in the
    logarithm between neighbours for the qualities between. In the encoder gains rise with the quality (finer
    steps of quantisation), in the decoder they fall.

    Args:
        levels: number of vectors, from quality 0 to quality 1.
        lowest: log2 of all gains at quality 0 before training.
        highest: log2 of all gains at quality 1 before training.
    """

    def __init__(self, levels: int = 8, lowest: float = -2.0, highest: float = 2.0, **kwargs: Any) -> None:
        super().__init__(levels, **kwargs)
        if not (math.isfinite(lowest) and math.isfinite(highest) and max(abs(lowest), abs(highest)) <= 16):
            raise ValueError(f"QualityGain: lowest {lowest} and highest {highest}, expected -16 to 16")
        self.lowest, self.highest = lowest, highest

    def build(self, shape: Any) -> None:
        """Make (levels, C) logarithms of gains for the inputs (B, H, W, C) and (B,)."""
        channels = int(shape[0][-1])
        line = np.linspace(self.lowest, self.highest, self.levels) * math.log(2.0)
        start = np.repeat(line[:, None], channels, axis=1).astype("float32")
        self.log_gains = self.add_weight(
            name="log_gains", shape=start.shape, initializer=keras.initializers.Constant(start)
        )

    def call(self, inputs: tuple[Any, Any]) -> Any:
        """Values (B, H, W, C) and quality (B,) in 0..1 -> values times gains, float32 (B, H, W, C)."""
        values, quality = inputs
        gains = ops.exp(between_levels(self.log_gains, quality))  # (B, C)
        return ops.cast(values, "float32") * gains[:, None, None, :]

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "lowest": self.lowest, "highest": self.highest}


@keras.saving.register_keras_serializable("attar")
class QualityShift(_ByQuality):
    """A vector that depends on the quality, added at every position: what follows can tell qualities apart.

    At the beginning of a trunk of gated blocks it reaches the gate of each of them, which then open or close
    features by the quality at no cost. It begins as 0.

    Args:
        levels: number of vectors, from quality 0 to quality 1; between two of them, their mixture.
    """

    def build(self, shape: Any) -> None:
        """Make (levels, C) values for the inputs (B, H, W, C) and (B,)."""
        channels = int(shape[0][-1])
        self.shifts = self.add_weight(name="shifts", shape=(self.levels, channels), initializer="zeros")

    def call(self, inputs: tuple[Any, Any]) -> Any:
        """Values (B, H, W, C) and quality (B,) in 0..1 -> values plus the shift, float32 (B, H, W, C)."""
        values, quality = inputs
        return ops.cast(values, "float32") + between_levels(self.shifts, quality)[:, None, None, :]


def between_levels(table: Any, quality: Any) -> Any:
    """Rows of a table (levels, C), linear between neighbours, for qualities (B,) in 0..1 -> (B, C)."""
    count = int(table.shape[0])
    place = ops.expand_dims(ops.cast(quality, "float32"), -1) * (count - 1.0)  # (B, 1)
    levels = ops.arange(count, dtype="float32")
    near = ops.relu(1.0 - ops.abs(place - levels))  # (B, levels): the two neighbours' shares
    return ops.matmul(near, table)


def _whole(value: Any, what: str, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ValueError(f"{what} is {value!r}, expected a whole number from {lowest} to {highest}")
    return value


BLOCKS: Mapping[str, type] = MappingProxyType(
    {
        cls.__name__: cls
        for cls in (PixelUnshuffle, PixelShuffle, GatedBlock, InvertedBlock, QualityGain, QualityShift)
    }
)
"""Layers of this module that a model.json may name."""
