"""Attar's own layers, on whatever Keras backend is in use."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from attar.train import blocks, layers
from training_kit import gradient, numpy

RNG = np.random.default_rng(3)
HALVES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.49, -3.51, 0.0, 1e4 + 0.5, -1e4 - 0.5, 8388607.0])


def prior_with(means: Any, log_scales: Any, logits: Any) -> layers.FactorizedPrior:
    """A prior with these parameters, each (C, K)."""
    prior = layers.FactorizedPrior(components=np.shape(means)[1])
    prior.build((None, np.shape(means)[0]))
    for variable, values in ((prior.means, means), (prior.log_scales, log_scales), (prior.logits, logits)):
        variable.assign(np.asarray(values, "float32"))
    return prior


def random_prior(channels: int = 5, components: int = 3) -> layers.FactorizedPrior:
    shape = (channels, components)
    return prior_with(RNG.normal(0, 4, shape), RNG.normal(0, 0.7, shape), RNG.normal(0, 1, shape))


def test_quantizer_rounds_as_the_codec_does() -> None:
    latent = np.concatenate([HALVES, RNG.normal(0, 20, 1000)]).astype("float32")[None]
    for training in (False, True):
        rounded, _ = layers.Quantizer(0)(latent, training=training)
        np.testing.assert_array_equal(numpy(rounded), np.rint(latent))


def test_quantizer_in_inference_rates_what_it_codes() -> None:
    rounded, rated = layers.Quantizer(0)(np.array([[0.4, 1.6]], "float32"))
    np.testing.assert_array_equal(numpy(rounded), numpy(rated))


def test_quantizer_lets_the_gradient_through_unchanged() -> None:
    quantizer, weights = layers.Quantizer(0), ops.convert_to_tensor(np.arange(12, dtype="float32"))
    latent = HALVES.astype("float32")
    for place in (0, 1):
        found = gradient(lambda x, i=place: ops.sum(quantizer(x, training=True)[i] * weights), latent)
        np.testing.assert_array_equal(found, np.arange(12))


def test_noise_is_uniform_new_each_time_and_the_same_for_a_seed() -> None:
    latent = np.zeros((100, 1000), "float32")
    first, again = layers.Quantizer(5), layers.Quantizer(5)
    noise = [numpy(first(latent, training=True)[1]) for _ in range(2)]
    assert noise[0].min() >= -0.5
    assert noise[0].max() < 0.5
    assert noise[0].mean() == pytest.approx(0, abs=0.01)
    assert noise[0].var() == pytest.approx(1 / 12, abs=0.002)
    assert not np.array_equal(noise[0], noise[1])
    np.testing.assert_array_equal(numpy(again(latent, training=True)[1]), noise[0])


def test_probabilities_sum_to_one() -> None:
    prior = random_prior()
    mass = prior.probabilities(-4096, 4096)
    assert mass.shape == (5, 8193)
    assert (mass >= 0).all()
    np.testing.assert_allclose(mass.sum(-1), 1, atol=1e-9)
    # Any piece of the range has the same probabilities.
    np.testing.assert_allclose(prior.probabilities(-3, 9), mass[:, 4093:4106], rtol=1e-12)


def test_bits_are_minus_log2_of_the_probabilities() -> None:
    prior = random_prior()
    symbols = np.arange(-40, 41)
    bits = numpy(prior(np.repeat(symbols[:, None], 5, axis=1).astype("float32")))
    expected = -np.log2(prior.probabilities(-40, 40)).T
    np.testing.assert_allclose(bits, expected, rtol=2e-5, atol=2e-5)


def test_bits_between_integers_are_those_of_the_unit_bin_around() -> None:
    prior = prior_with([[0.3]], [[0.5]], [[0.0]])
    values = np.linspace(-3, 3, 25)
    scale = np.exp(0.5)

    def cdf(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(x - 0.3) / scale))

    bits = numpy(prior(values[:, None].astype("float32")))[:, 0]
    np.testing.assert_allclose(bits, -np.log2(cdf(values + 0.5) - cdf(values - 0.5)), atol=1e-5)


def test_tails_grow_and_never_flatten() -> None:
    prior = random_prior()
    away = np.geomspace(30, 1e4, 40)[:, None] * np.ones((1, 5))
    for side in (1, -1):
        bits = numpy(prior((side * away).astype("float32")))
        assert np.isfinite(bits).all()
        assert (np.diff(bits, axis=0) > 0).all()


@pytest.mark.parametrize("log_scale", [-6.0, 0.0, 8.0])
def test_extremes_have_bits_and_a_gradient_that_leads_back(log_scale: float) -> None:
    prior = prior_with([[0.0], [0.25]], [[log_scale]] * 2, [[0.0]] * 2)
    values = np.array([[-1e4, 1e4], [-300, 300], [-0.5, 0.5], [0, 0.25]], "float32")
    bits = numpy(prior(values))
    assert np.isfinite(bits).all()
    assert (bits >= 0).all()
    found = gradient(lambda x: ops.sum(prior(x)), values)
    assert np.isfinite(found).all()
    assert (np.sign(found[0]) == [-1, 1]).all()
    assert (abs(found[0]) > 1e-5).all()


def test_channels_may_have_any_shape_before_them() -> None:
    prior = random_prior(channels=4)
    symbols = RNG.integers(-5, 6, (2, 3, 6, 4)).astype("float32")
    bits = numpy(prior(symbols))
    assert bits.shape == symbols.shape
    np.testing.assert_allclose(bits[1, 2], numpy(prior(symbols[1, 2])), rtol=1e-6)


@pytest.mark.parametrize("arguments", [{"components": 0}, {"spread": 0.0}, {"spread": -1.0}])
def test_a_prior_of_nothing_is_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="components must be >= 1 and spread > 0"):
        layers.FactorizedPrior(**arguments)


def test_clip_is_hard_in_inference_and_open_to_gradients_in_training() -> None:
    clip = layers.ClipToUnit()
    values = np.array([-0.5, 0.0, 0.3, 1.0, 1.7], "float32")
    for training in (False, True):
        np.testing.assert_allclose(numpy(clip(values, training=training)), np.clip(values, 0, 1), atol=1e-7)
    np.testing.assert_array_equal(gradient(lambda x: ops.sum(clip(x, training=True)), values), np.ones(5))
    assert numpy(clip(ops.cast(values, "bfloat16"))).dtype == np.float32


def test_pixels_become_units() -> None:
    pixels = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_allclose(
        numpy(layers.PixelsToUnit()(pixels)), pixels.astype("float32") / 255, rtol=1e-6
    )
    half = layers.PixelsToUnit(dtype="mixed_bfloat16")(pixels)
    assert "bfloat16" in str(half.dtype)


def test_a_shift_is_interpolated_between_its_levels() -> None:
    layer = blocks.QualityShift(levels=3)
    values = np.ones((3, 2, 2, 2), np.float32)
    assert np.array_equal(numpy(layer([values, np.array([0.0, 0.3, 1.0], np.float32)])), values)
    layer.shifts.assign([[0, 0], [4, 8], [6, -8]])
    found = numpy(layer([values, np.array([0.25, 0.5, 1.0], np.float32)]))
    expected = np.array([[3, 5], [5, 9], [7, -7]], np.float32)
    np.testing.assert_allclose(found, np.broadcast_to(expected[:, None, None], found.shape))


def test_an_inverted_block_bends_features_of_any_size() -> None:
    block = blocks.InvertedBlock(expansion=2.0, slope=0.25)
    values = RNG.normal(size=(1, 4, 5, 3)).astype("float32")
    found = numpy(block(values)) - values
    tiny = np.float32(1e-4)
    np.testing.assert_allclose(
        numpy(block(tiny * values)) - tiny * values, tiny * found, rtol=1e-2, atol=1e-7
    )
    assert abs(found + numpy(block(-values)) + values).max() > 0.1 * abs(found).max(), "a linear block"

    def rectified(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, 0.25 * x)

    expand, spread, project = (numpy(part.kernel) for part in (block.expand, block.spread, block.project))
    padded = np.pad(rectified(values @ expand[0, 0]), ((0, 0), (1, 1), (1, 1), (0, 0)))
    hidden = sum(padded[:, i : i + 4, j : j + 5] * spread[i, j, :, 0] for i in range(3) for j in range(3))
    np.testing.assert_allclose(found, rectified(hidden) @ project[0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (blocks.InvertedBlock, {"expansion": 0}, "InvertedBlock: expansion is 0"),
        (blocks.InvertedBlock, {"slope": 1.5}, "InvertedBlock: slope is 1.5, expected 0 to 1"),
        (blocks.GatedBlock, {"kernel_size": 0}, "GatedBlock: kernel_size is 0"),
    ],
)
def test_a_block_that_cannot_be_is_refused(cls: Any, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**arguments)


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (blocks.GatedBlock, {"expansion": 0.5, "kernel_size": 5}),
        (blocks.InvertedBlock, {"expansion": 2.5, "kernel_size": 5, "slope": 0.01}),
        (layers.Quantizer, {"seed": 4}),
        (layers.FactorizedPrior, {"components": 2, "spread": 1.5}),
        (layers.ClipToUnit, {}),
        (layers.PixelsToUnit, {}),
    ],
)
def test_a_layer_is_rebuilt_from_its_configuration(cls: Any, arguments: dict) -> None:
    layer = cls(**arguments)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is cls
    assert again.get_config() == layer.get_config()
    assert {key: getattr(again, key) for key in arguments} == arguments


@pytest.mark.parametrize("cls", [blocks.GatedBlock, blocks.InvertedBlock])
def test_a_block_that_is_not_trained_has_no_part_that_is(cls: Any) -> None:
    fixed, trained = cls(trainable=False), cls()
    for block in (fixed, trained):
        block(np.zeros((1, 4, 4, 8), np.float32))
    assert not fixed.trainable_variables
    assert len(trained.trainable_variables) == 6 == len(fixed.variables)
