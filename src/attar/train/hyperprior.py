"""The network of a model.json with ``"entropy": {"kind": "hyperprior"}``: mean, scale and context.

::

    image, quality --analysis--> y --hyper_analysis--> z --round--> z^ --+--hyper_scales (integers)--> S
                                                                         +--hyper_means (float)------> M
    first pass   table S[..:L], mean M[..:L]          r = round((y - mean) / step) where row + column + channel is even
    second pass  S and |r| --context_scales (integers)--> table;   M and r + mean --context_means--> mean
    step r + mean of both passes = y^ --synthesis, quality--> image

Mean and scale from a hyper-latent: Minnen et al. 2018 (arXiv:1809.02736). Two passes: He et al. 2021
(arXiv:2103.15306), with a checkerboard that alternates from channel to channel (Li et al. 2022,
arXiv:2207.05894), so that the first pass touches every position. The residual to the mean is coded, and what
chooses a table is an integer network of integers: the decoder's own floating-point mean may differ in its
last bits unnoticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops

from attar import spec as specs
from attar.train import hyperlatents, hyperoptions, layers, localsteps, network
from attar.train.integer import (
    AddIndex,
    IntegerConv2D,
    IntegerDepthwiseConv2D,
    IntegerInput,
    straight_through,
)
from attar.train.network import Forward
from attar.train.rounding import crossing, quantise, rate

DEFAULT_QUALITY = 49 / 99
"""What is validated where nobody names a quality: that of ``attar compress``, 50 of 1..100."""


@keras.saving.register_keras_serializable("attar")
class HyperNetwork(network.Network):
    """All networks and the prior of one model.json, as one Keras model. Use
    :func:`attar.train.network.build`."""

    def __init__(
        self,
        spec: specs.ModelSpec,
        parts: Mapping[str, Any],
        prior: Any,
        options: Mapping[str, Any],
        seed: int | None,
    ) -> None:
        super().__init__(spec, parts["analysis"], parts["synthesis"], prior, seed)
        self.hyper_analysis = parts["hyper_analysis"]
        self.hyper_scales = parts["hyper_scales"]
        self.hyper_means = parts["hyper_means"]
        self.context_scales = parts.get("context_scales")
        self.context_means = parts.get("context_means")
        self.hyper_prior, self.hyper_choice = parts.get("hyper_prior"), parts.get("hyper_choice")
        self.options = dict(options)
        self.local_steps = localsteps.LocalSteps(options["steps"], name="steps") if options["steps"] else None
        if self.local_steps is not None:
            self.local_steps.build((None, None, None, self.latent_channels))
        self.random = keras.random.SeedGenerator(seed)

    @property
    def parts(self) -> dict[str, Any]:
        """The networks that a bundle holds, by name."""
        names = (
            "analysis",
            "hyper_analysis",
            "hyper_prior",
            "hyper_scales",
            "hyper_means",
            "context_scales",
            "context_means",
        )
        found = {name: getattr(self, name) for name in (*names, "synthesis")}
        return {name: part for name, part in found.items() if part is not None}

    @property
    def prior_parts(self) -> frozenset[str]:
        """The networks that only choose tables."""
        return frozenset({"hyper_prior", "hyper_scales", "context_scales"})

    def train_only(self, what: str) -> None:
        """See the base; steps belong to the encoder, as what they cost and save is not seen by the tables alone."""
        super().train_only(what)
        if self.local_steps is not None:
            self.local_steps.trainable = what == "encoder"

    @property
    def latent_channels(self) -> int:
        """L, channels of the latent."""
        return int(self.analysis.output_shape[-1])

    @property
    def has_qualities(self) -> bool:
        """Whether one model serves a range of rates."""
        low, high = self.options["lambda"]
        return bool(high > low)

    @property
    def integer_layers(self) -> list[Any]:
        """Every integer layer."""
        kinds = (IntegerConv2D, IntegerDepthwiseConv2D)
        parts = [part for name, part in self.parts.items() if name in self.prior_parts]
        return [layer for part in parts for layer in part.layers if isinstance(layer, kinds)]

    def lambdas(self, quality: Any) -> Any:
        """Quality (B,) in 0..1 -> lambda (B,)."""
        low, high = self.options["lambda"]
        return ops.exp(quality * math.log(high / low) + math.log(low))

    def draw(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Quality (B,) in 0..1 for images of ``shape``."""
        quality = keras.random.uniform((shape[0],), 0.0, 1.0, "float32", seed=self.random)
        return {"quality": quality if self.has_qualities else None}

    def call(  # type: ignore[override]  # each kind of network takes what its own draw gives
        self, images: Any, training: bool = False, *, quality: Any = None
    ) -> Forward:
        """Images (B, H, W, C) uint8 -> :class:`Forward`; quality (B,) or one for all: see draw."""
        if quality is None and training:
            quality = self.draw(tuple(images.shape))["quality"]
        if quality is None:
            quality = DEFAULT_QUALITY
        if isinstance(quality, float):
            quality = ops.full((images.shape[0],), quality, "float32")
        latent = ops.cast(self.analysis([images, quality], training=training), "float32")
        hyper = ops.cast(self.hyper_analysis(latent, training=training), "float32")
        coded = quantise(hyper, training)
        spent = _total(rate(hyper, self.hyper_bits(coded, quality, training), training))
        found, bits, symbols = self._passes(latent, coded, quality, training)
        image = self.synthesis([found, quality], training=training)
        return Forward(image, spent + bits, symbols, self.lambdas(quality))

    def hyper_bits(self, symbols: Any, quality: Any, training: bool) -> Callable[[Any], Any]:
        """What tells the bits of hyper-latents when these ``symbols`` (B, h, w, Z) are coded."""
        prior = self.prior
        if self.hyper_choice is None:
            return prior
        level = hyperlatents.levels(quality if self.has_qualities else ops.zeros_like(quality))
        parts = prior.parts(hyperlatents.run(self.hyper_choice, symbols, level, training), training)
        return lambda values: prior.bits(values, *parts)

    def _passes(self, latent: Any, hyper: Any, quality: Any, training: bool) -> tuple[Any, Any, Any]:
        """Latent as the decoder gets it (B, h, w, L), its bits (B,), and the symbols (B, h, w, L)."""
        channels = self.latent_channels
        scales, means = (
            self.hyper_scales(hyper, training=training),
            self.hyper_means(hyper, training=training),
        )
        index, mean = scales[..., :channels], ops.cast(means[..., :channels], "float32")
        shift: Any = 0.0
        if self.local_steps is not None:
            shift = self.local_steps(index, quality, training=training)
        step = ops.exp(shift * self.scale_step)

        def tables(index: Any) -> Any:
            if self.local_steps is None:
                return index
            inside = ops.clip(index - shift, 0, self.options["scales"] - 1)
            return straight_through(inside, index - shift) if training else inside

        def residuals(mean: Any, index: Any) -> tuple[Any, Any, Any]:
            residual = (latent - mean) / step
            proxy = self._proxy(latent, mean, step, index) if training else None
            return residual, quantise(residual, training, proxy), proxy

        index = tables(index)
        residual, symbols, proxy = residuals(mean, index)
        if self.context_scales is not None and self.context_means is not None:
            first = checkerboard(*latent.shape[1:])
            symbols = first * symbols
            found = symbols * step + first * mean
            second = tables(self.context_scales([scales, symbols], training=training))
            index = first * index + (1 - first) * second
            shifted = ops.cast(self.context_means([means, found], training=training), "float32")
            mean = first * mean + (1 - first) * shifted
            residual, symbols, proxy = residuals(mean, index)
            found = found + (1 - first) * (symbols * step + mean)
        else:
            found = symbols * step + mean
        bits = rate(residual, lambda values: self.bits(values, index), training, proxy)
        return found, _total(bits), symbols

    def _proxy(self, latent: Any, mean: Any, step: Any, index: Any) -> Any:
        """What stands for the rounded residual in gradients.

        A mean gets the plain one, which fits it to the median of the latent's values: in a sparse channel the
        true gradient, through what the decoder makes of it, is mostly noise.
        """
        unit = ops.stop_gradient(step)
        residual = ops.stop_gradient((latent - mean) / step)
        share = crossing(residual, self._inverse(index))
        return share * (latent / unit - residual * ops.log(step)) - mean / unit

    def _inverse(self, index: Any) -> Any:
        """Inverse of the scale that ``index`` names."""
        return ops.exp(-(index * self.scale_step + math.log(self.options["smallest_scale"])))

    def bits(self, residuals: Any, index: Any) -> Any:
        """Bits of residuals under a logistic of the scale that ``index`` (0..scales - 1) names; all one shape."""
        return hyperlatents.logistic_bits(residuals, self._inverse(index))

    @property
    def scale_step(self) -> float:
        """Distance of two scales in the natural logarithm."""
        ratio = self.options["largest_scale"] / self.options["smallest_scale"]
        return math.log(ratio) / (self.options["scales"] - 1)

    def scale_probabilities(self, minimum: int, maximum: int) -> np.ndarray:
        """Probability of every integer in minimum..maximum at each scale, float64 (scales, count)."""
        scale = self.options["smallest_scale"] * np.exp(self.scale_step * np.arange(self.options["scales"]))
        return hyperlatents.logistic_mass(np.arange(minimum, maximum + 1), scale[:, None])

    def shapes(self, size: int) -> tuple[Any, Any]:
        """Shapes of latent and regenerated image of a square image; ValueError where they do not fit together."""
        channels, level = self.spec.input_shape[2], (1,)
        latent = self.analysis.compute_output_shape([(1, size, size, channels), level])
        hyper = self.hyper_analysis.compute_output_shape(latent)
        for part in (self.hyper_scales, self.hyper_means):
            if tuple(part.compute_output_shape(hyper))[:3] != tuple(latent)[:3]:
                raise ValueError(f"{part.name} does not give the latent's height and width back")
        return latent, self.synthesis.compute_output_shape([latent, level])

    @cached_property
    def strides(self) -> tuple[int, int]:
        """Pixels per position of the latent and of the hyper-latent."""
        size = network.geometry(self).multiple
        latent, _ = self.shapes(size)
        hyper = self.hyper_analysis.compute_output_shape(latent)
        return size // int(latent[1]), size // int(hyper[1])


def checkerboard(height: int, width: int, channels: int) -> Any:
    """1 for the elements of the first pass, even row + column + channel; float32 (height, width, channels)."""
    row, column, channel = (ops.arange(size, dtype="int32") for size in (height, width, channels))
    total = row[:, None, None] + column[:, None] + channel
    return ops.cast(1 - total % 2, "float32")


def build(spec: specs.ModelSpec, seed: int | None, dtype: str) -> HyperNetwork:
    """Build the network; :func:`attar.train.network.build` calls this. Raises SpecError."""
    options = hyperoptions.options_of(spec)
    chain = network.chain
    with network.policy(dtype):
        chains = network.make_layers(spec)
        image = keras.Input(spec.input_shape, name="image", dtype="uint8")
        quality = keras.Input((), name="quality", dtype="float32")
        parts: dict[str, Any] = {}

        def part(name: str, inputs: Any, output: Any) -> Any:
            parts[name] = keras.Model(inputs, output, name=name)
            return output

        def given(shape: Any, name: str) -> Any:
            return keras.Input(tuple(shape)[1:], name=name, dtype="float32")

        unit = layers.PixelsToUnit(name="pixels_to_unit")(image)
        latent = part("analysis", [image, quality], chain(unit, chains["encoder"], spec, quality))
        values = given(latent.shape, "latent")
        hyper = part("hyper_analysis", values, chain(values, chains["hyper_encoder"], spec))
        z = given(hyper.shape, "hyper_symbols")
        prior = hyperlatents.build(spec, chains, z, parts)
        scales = chain(IntegerInput(name="hyper_input")(z), chains["hyper_scales"], spec)
        scales = part("hyper_scales", z, scales)
        z = given(hyper.shape, "hyper_symbols")
        means = part("hyper_means", z, chain(z, chains["hyper_decoder"], spec))
        channels = int(latent.shape[-1])
        hyperoptions.check_widths(spec, channels, scales, means, options)
        if "context" in chains:
            known, symbols = given(scales.shape, "scales"), given(latent.shape, "symbols")
            magnitude = IntegerInput(magnitude=True, name="context_input")(symbols)
            delta = chain(
                keras.layers.Concatenate(name="context_scales_input", dtype="float32")([known, magnitude]),
                chains["context_scales"],
                spec,
            )
            part(
                "context_scales",
                [known, symbols],
                AddIndex(options["scales"], name="context_index")([known, delta]),
            )
            known, found = given(means.shape, "means"), given(latent.shape, "found")
            shift = chain(
                keras.layers.Concatenate(name="context_input_means")([known, found]), chains["context"], spec
            )
            part("context_means", [known, found], AddMean(name="context_mean")([known, shift]))
            hyperoptions.check_context(spec, channels, delta, shift)
        values = given(latent.shape, "latent")
        out = chain(values, chains["decoder"], spec, quality)
        part("synthesis", [values, quality], layers.ClipToUnit(name="clip_to_unit", dtype="float32")(out))
    if prior is None:
        prior = layers.FactorizedPrior(options["components"], options["spread"], name="prior")
        prior.build(hyper.shape)
    return HyperNetwork(spec, parts, prior, options, seed)


@keras.saving.register_keras_serializable("attar")
class AddMean(keras.layers.Layer):
    """Means of the first pass plus what the context adds, float32."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def call(self, inputs: Any) -> Any:
        """Means (B, h, w, L + E) and shift (B, h, w, L) -> means (B, h, w, L)."""
        means, shift = inputs
        return means[..., : shift.shape[-1]] + shift

    def compute_output_shape(self, shape: Any) -> Any:
        """The shape of the shift."""
        return tuple(shape[1])


def _total(bits: Any) -> Any:
    return ops.sum(bits, axis=(1, 2, 3))
