"""Layers that compute in integers: networks that choose a frequency table, the same on every machine.

A table index decides how bytes are read, so it must never differ between the encoder's machine and the
decoder's. These layers have 8-bit weights and activations, and requantise by a power of two. Written as
float32 convolutions, every partial sum is a multiple of ``2^-s`` below ``2^(24-s)``: exactly
representable, so that any order of summation, on any processor, gives the same number (Balle et al. 2019,
"Integer networks for data compression with latent-variable models"; Jacob et al. 2018, arXiv:1712.05877, for
training by fake quantisation).
What must not happen is a transformed convolution (Winograd, FFT), whose products are no integers: runtimes
use these for dense kernels larger than 1x1 only, so models are built of 1x1 and depthwise convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras
from keras import ops

LARGEST_WEIGHT = 127
LARGEST_ACTIVATION = 255
LARGEST_SUM = 1 << 15
"""Bound on the sum of the weights of one output: times 255 below 2^23, which leaves 2^23 for the bias."""
LARGEST_BIAS = 1 << 22
MOST_BITS = 20
LEAK = 0.1
"""Gradient beyond the range of an activation, so that what is clipped can come back."""


def straight_through(value: Any, proxy: Any) -> Any:
    """``value`` to the last bit, with the gradient of ``proxy`` (Bengio et al. 2013, arXiv:1308.3432)."""
    return ops.stop_gradient(value) + (proxy - ops.stop_gradient(proxy))


class _IntegerConvolution(keras.layers.Layer):
    """What both convolutions share: weights that are integers times ``2^-s``, and the integer activation."""

    def __init__(
        self,
        kernel_size: int = 1,
        input_bits: int = 4,
        output_bits: int = 4,
        minimum: int = 0,
        maximum: int = LARGEST_ACTIVATION,
        bias_initializer: Any = "zeros",
        kernel_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if kernel_size not in range(1, 16, 2):
            raise ValueError(f"{type(self).__name__}: kernel_size is {kernel_size!r}, expected 1, 3, ... 15")
        for name, bits in (("input_bits", input_bits), ("output_bits", output_bits)):
            if bits not in range(9):
                raise ValueError(f"{type(self).__name__}: {name} is {bits!r}, expected 0 to 8")
        limit = LARGEST_ACTIVATION
        if not (-limit <= minimum < maximum <= limit and maximum - minimum <= limit):
            raise ValueError(
                f"{type(self).__name__}: activations {minimum} to {maximum}; expected 8 bits within "
                f"-{limit}..{limit}"
            )
        self.kernel_size, self.input_bits, self.output_bits = kernel_size, input_bits, output_bits
        self.minimum, self.maximum = minimum, maximum
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_initializer = keras.initializers.get(kernel_initializer or self.default_initializer())
        self.fixed: tuple[Any, Any] | None = None

    def call(self, values: Any, training: bool = False) -> Any:
        """Integers (B, H, W, C), at most 255, as float32 -> integers ``minimum..maximum``, as float32."""
        kernel, bias = self.fixed or self.quantised()
        total = self.convolve(values, kernel) + bias
        stepped = ops.clip(ops.floor(total), self.minimum, self.maximum)
        if not training:
            return stepped
        soft = total - 0.5
        inside = ops.clip(soft, self.minimum, self.maximum)
        return straight_through(stepped, inside + LEAK * (soft - inside))

    def quantised(self) -> tuple[Any, Any]:
        """Kernel (k, k, C, F) and bias (F,) as used: integers times ``2^-s``, the bias with 0.5 for rounding.

        ``s`` is the most for which the kernel keeps to 8 bits and every sum below ``2^24``.
        """
        kernel = self.kernel * 2.0 ** (self.output_bits - self.input_bits)
        bias = self.bias * 2.0**self.output_bits
        magnitude = ops.abs(ops.stop_gradient(kernel))
        fan_in = self.fan_in(kernel)
        largest = ops.amax(magnitude, axis=self.inner_axes, keepdims=True)
        total = ops.sum(magnitude, axis=self.inner_axes, keepdims=True)
        room = ops.minimum(
            LARGEST_WEIGHT / ops.maximum(largest, 1e-9), (LARGEST_SUM - fan_in / 2) / ops.maximum(total, 1e-9)
        )
        bits = ops.clip(ops.floor(ops.log2(room)), 0.0, float(MOST_BITS))
        unit = ops.power(2.0, bits)
        steps = ops.clip(ops.round(kernel * unit), -LARGEST_WEIGHT, LARGEST_WEIGHT)
        unit_of_bias = ops.reshape(unit, (-1,))
        bias_steps = ops.clip(ops.round(bias * unit_of_bias), -LARGEST_BIAS, LARGEST_BIAS)
        half = ops.floor(unit_of_bias / 2)
        return (
            straight_through(steps / unit, kernel),
            straight_through((bias_steps + half) / unit_of_bias, bias),
        )

    def freeze(self) -> None:
        """Compute with today's quantised weights, as constants, from now on: what is exported is computed."""
        kernel, bias = (ops.stop_gradient(value) for value in self.quantised())
        self.fixed = (kernel, bias)

    def thaw(self) -> None:
        """Follow the trained weights again."""
        self.fixed = None

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Height and width stay."""
        return (*shape[:-1], self.outputs(int(shape[-1] or 0)))

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        names = ("kernel_size", "input_bits", "output_bits", "minimum", "maximum")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable("attar")
class IntegerConv2D(_IntegerConvolution):
    """Convolution of 8-bit integers by 8-bit integers, requantised to 8 bits by powers of two.

    In training the weights and activations are rounded in the forward pass and the gradient passes straight
    through. The activation is the clipping itself: 0..255 is a ReLU.

    Args:
        filters: output channels.
        kernel_size: side of the kernel; only 1 is safe in every runtime, see the module.
        input_bits: an input integer stands for itself times ``2^-input_bits`` (4; 0 for symbols).
        output_bits: likewise for the output.
        minimum: smallest output.
        maximum: largest output.
        bias_initializer: of the bias, in the units of ``output_bits``.
        kernel_initializer: of the kernel; He et al. 2015 unless given.
    """

    inner_axes = (0, 1, 2)

    def __init__(self, filters: int, kernel_size: int = 1, **kwargs: Any) -> None:
        super().__init__(kernel_size=kernel_size, **kwargs)
        if isinstance(filters, bool) or not isinstance(filters, int) or filters < 1:
            raise ValueError(f"IntegerConv2D: filters is {filters!r}, expected a whole number of at least 1")
        self.filters = filters

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make the kernel (k, k, C, filters) and the bias (filters,)."""
        k = self.kernel_size
        self.kernel = self.add_weight(
            name="kernel",
            shape=(k, k, int(shape[-1] or 0), self.filters),
            initializer=self.kernel_initializer,
        )
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer=self.bias_initializer)

    def default_initializer(self) -> Any:
        """He et al. 2015."""
        return keras.initializers.HeNormal()

    def convolve(self, values: Any, kernel: Any) -> Any:
        """(B, H, W, C) -> (B, H, W, filters), zeros around."""
        return ops.conv(values, kernel, 1, "same", "channels_last")

    def outputs(self, channels: int) -> int:
        """Number of output channels."""
        return self.filters

    def fan_in(self, kernel: Any) -> int:
        """Number of weights of one output."""
        return self.kernel_size**2 * int(kernel.shape[2])

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable("attar")
class IntegerDepthwiseConv2D(_IntegerConvolution):
    """Depthwise convolution of 8-bit integers; arguments as :class:`IntegerConv2D`, without ``filters``."""

    inner_axes = (0, 1, 3)

    def __init__(self, kernel_size: int = 3, **kwargs: Any) -> None:
        super().__init__(kernel_size=kernel_size, **kwargs)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make the kernel (k, k, C, 1) and the bias (C,)."""
        k, channels = self.kernel_size, int(shape[-1] or 0)
        self.kernel = self.add_weight(
            name="kernel", shape=(k, k, channels, 1), initializer=self.kernel_initializer
        )
        self.bias = self.add_weight(name="bias", shape=(channels,), initializer=self.bias_initializer)

    def default_initializer(self) -> Any:
        """He et al. 2015 with the fan-in of one channel; Keras would count all channels."""
        return keras.initializers.RandomNormal(stddev=2**0.5 / self.kernel_size)

    def convolve(self, values: Any, kernel: Any) -> Any:
        """(B, H, W, C) -> (B, H, W, C), zeros around."""
        return ops.depthwise_conv(values, kernel, 1, "same", "channels_last")

    def outputs(self, channels: int) -> int:
        """Number of output channels."""
        return channels

    def fan_in(self, kernel: Any) -> int:  # one channel alone
        """Number of weights of one output."""
        del kernel
        return self.kernel_size**2


@keras.saving.register_keras_serializable("attar")
class IntegerInput(keras.layers.Layer):
    """Symbols to what an integer layer takes: their magnitude or themselves, clipped to -127..127."""

    def __init__(self, magnitude: bool = False, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.magnitude = magnitude

    def call(self, symbols: Any) -> Any:
        """Integers as float32, any shape -> the same shape."""
        return ops.clip(ops.abs(symbols) if self.magnitude else symbols, -LARGEST_WEIGHT, LARGEST_WEIGHT)

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "magnitude": self.magnitude}


@keras.saving.register_keras_serializable("attar")
class AddIndex(keras.layers.Layer):
    """Table indexes of the first pass plus what the context adds, kept to 0..scales - 1; integers."""

    def __init__(self, scales: int, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.scales = scales

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Scales (B, h, w, L + E) and delta (B, h, w, L) -> indexes (B, h, w, L)."""
        scales, delta = inputs
        total = scales[..., : delta.shape[-1]] + delta
        inside = ops.clip(total, 0, self.scales - 1)
        return straight_through(inside, total) if training else inside

    def compute_output_shape(self, shape: Any) -> Any:
        """The shape of the delta."""
        return tuple(shape[1])

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "scales": self.scales}


INTEGER_LAYERS: Mapping[str, type] = MappingProxyType(
    {cls.__name__: cls for cls in (IntegerConv2D, IntegerDepthwiseConv2D)}
)
"""Layers of this module that a model.json may name."""
